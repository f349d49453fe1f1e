// The smallest durable loop. Without --live it only says what it would do:
//
//   morphogen loop run examples/knowledge/hello.mk --live --workspace /tmp/hello --run hello
//   morphogen loop answer hello --text "a name"
//   morphogen loop resume hello
//   morphogen sql "SELECT number, path, status, output FROM loop_steps WHERE run = 'hello' ORDER BY number"

task Hello {
    step look: tool.run { cmd: "uname -s", output_var: system }
    step ask: llm.query { prompt: "Who shall be greeted on {{system}}?", output_var: who }
    step greet: tool.write { path: "greeting.txt", content: "Hello, {{who}}, on {{system}}.\n" }

    evaluation {
        check lines: tool.run { cmd: ["sh", "-c", "wc -l < greeting.txt"] }
    }
    success: file_contains("greeting.txt", "Hello"), metric("lines") == 1
}
