// A task for a system administrator: look at the disk, clean up where it is full, and leave a report.
// Whatever kills it when, what was removed is not removed twice and the report has each finding once.
//
//   morphogen loop run examples/knowledge/sysadmin.mk --live --workspace /tmp/scratch --set keep_days=7

system Housekeeping {
    description: "Keep a scratch folder in order."

    model {
        state keep_days: int = 30
    }

    trace_schema {
        variant TraceItem {
            case Disk { used: float in %, files: int }
            case Cleaned { files: int }
        }
    }

    knowledge {
        fact is_full(t: TraceItem.Disk) { return t.used > 80% }
        fact is_crowded(t: TraceItem.Disk) { return t.files > 1000 }
        rule "Clean up" { when: is_crowded, apply: "remove what nobody has read for long" }
        invariant Harmless { assert: keep_days >= 1 }
    }

    procedure measure() {
        tool.run {
            cmd: [
                "sh",
                "-c",
                """
        used=$(df --output=pcent . | tail -n 1 | tr -d ' %')
        files=$(find . -type f | wc -l)
        printf 'MORPHOGEN_TRACE {"case": "Disk", "used": %s, "files": %s}\\n' "$used" "$files"
      """,
            ]
            on_interrupt: retry
        } -> emit TraceItem.Disk
    }

    agent_loop Tidy {
        step look {
            measure {}
        }

        step clean {
            removed = "0"
            if is_full(trace.latest(Disk)) or is_crowded(trace.latest(Disk)) {
                removed = tool.run {
                    cmd: [
                        "sh",
                        "-c",
                        "find . -type f -name '*.tmp' -mtime +{{keep_days}} -print -delete | wc -l",
                    ]
                    on_interrupt: retry
                }
            }
        }

        step again {
            measure {}
        }

        step report: tool.write {
            path: "report.md"
            content: """
      # Scratch folder
      Before: {{trace.all(Disk)[0].files}} files. Removed: {{removed}}. Now: {{trace.latest(Disk).files}} files,
      the disk is {{trace.latest(Disk).used}} % full.
      """
        }

        success: file_exists("report.md")
    }
}
