"""Wrong programs, each with the code of every finding written where the finding must stand."""

_TRACE = """trace_schema { variant Item {
  case Perf { name: string, tflops: float, speedup: float, latency: float in ms, size: float in GB, count: int, bound: "mem" | "compute", ok: boolean, note: string? }
  case Check { passed: boolean, error: float }
} }
"""


def knowledge(body: str) -> str:
    """Put a body into the knowledge of a system with a trace."""
    return f"system S {{ {_TRACE} knowledge {{ {body} }} }}"


def fact(body: str, case: str = "Perf") -> str:
    """Make a module of one fact."""
    return knowledge(f"fact f(t: {case}) {{ return {body} }}")


def system(body: str) -> str:
    """Put declarations into a system with a trace."""
    return f"system S {{ {_TRACE} {body} }}"


def agent(body: str) -> str:
    """Make an agent loop of these steps."""
    return system(f"agent_loop L {{ {body} }}")


def task(body: str) -> str:
    """Make a task of these steps."""
    return f"task T {{ {body} }}"


def sweep(body: str, rest: str = "") -> str:
    """Make a sweep."""
    return system(f"{rest} engineering_loop E {{ {body} }}")


_RUN = 'tool.run { cmd: "x" }'

FINDINGS = {
    # Names
    "an undefined name in a fact": fact("«K101»treshold < 3"),
    "an undefined name in a rule": knowledge('rule "R" { when: «K101»Pipeline_Stall apply: "x" }'),
    "a recorded fact as a condition": knowledge(
        'fact known { description: "d" } rule "R" { when: «K101»known apply: "x" }'
    ),
    "an undefined name in a template": task('step s: tool.run { cmd: "echo {{«K101»nn}}" }'),
    "an undeclared parameter in a command": sweep(
        'parameter A: [1] measure { cmd: "b {{A}} {{«K101»B}}" metric: "tflops" objective: maximize }'
    ),
    "a field that the case lacks": fact("«K102»t.tflps < 3"),
    "a field that no case has": agent("step s { if «K102»trace.latest.tflps > 3 { " + _RUN + " } }"),
    "a field of what a type lacks": system(
        'model { type P matches { tile: int } } agent_loop L { step s { p = llm.query { prompt: "x" returns: P } best = «K102»p.tyle _b = best } }'
    ),
    "an unknown member of trace": agent("step s { if «K102»trace.lates.tflops > 3 { " + _RUN + " } }"),
    "a fact on an unknown case": knowledge("«K103»fact f(t: Item.Prf) { return t.tflops < 3 }"),
    "the latest of an unknown case": agent("step s { if trace.latest(«K103»Prf).tflops > 3 { " + _RUN + " } }"),
    "an emit of an unknown case": agent("step s { «K103»emit Prf { tflops: 1 } }"),
    "an action that emits an unknown case": agent('step s: «K103»tool.run { cmd: "x" } -> emit Item.Prf'),
    "a handler of an unknown case": system("service_loop W { «K103»on Item.Prf(t) { " + _RUN + " } }"),
    "an unknown type of a field": "system S { trace_schema { variant V { case C { x: «K104»flaot } } } }",
    "an unknown type of a parameter": system("function g(a: «K104»real): float { return 1.0 }"),
    "an unknown type of an answer": agent('step s: llm.query { prompt: "x" returns: «K104»Pln }'),
    "an unknown function": fact("«K105»lg2(t.tflops) < 3"),
    "a condition of success in a step": agent('step s { if «K105»file_exists("x") { ' + _RUN + " } }"),
    "an unknown engineering loop": agent('step s: tool.engineering_loop { name: «K106»"Tils" }'),
    "an unknown name in an artifact": system('build { artifact "r.md" { input: «K106»knowlege } }'),
    "a fact twice": knowledge("fact f(t: Perf) { return t.tflops < 3 } «K107»fact f(t: Perf) { return t.tflops < 4 }"),
    "a fact and a recorded fact of one name": knowledge(
        'fact f(t: Perf) { return t.tflops < 3 } «K107»fact f { description: "d" }'
    ),
    "a case twice": "system S { trace_schema { variant A { case C { x: int } } variant B { «K107»case C { y: int } } } }",
    "a field twice": "system S { trace_schema { variant A { case C { x: int, «K107»x: float } } } }",
    "a step twice": task(f"step a: {_RUN} «K107»step a: {_RUN}"),
    "a parameter twice": sweep(
        'parameter A: [1] «K107»parameter A: [2] measure { cmd: "b {{A}}" metric: "tflops" objective: maximize }'
    ),
    "a function with a built-in name": system("«K107»function min(a: int): int { return a }"),
    "a system twice": "system A { } «K107»system A { }",
    "a handler twice": system(f"service_loop W {{ on e(x) {{ {_RUN} }} «K107»on e(y) {{ {_RUN} }} }}"),
    "a field emitted twice": agent("step s { emit Check { passed: true, error: 1.0, «K107»error: 2.0 } }"),
    "a case of two systems": (
        "system A { trace_schema { variant V { case C { x: int } } } } "
        "system B { trace_schema { variant V { case C { x: int } } } } "
        "system D { knowledge { «K108»fact f(t: C) { return t.x > 1 } } }"
    ),
    "an axiom too many": 'system_model M { axiom: "a" } '
    + task('step s: llm.query { prompt: "{{«K112»axiom.1}}" output_var: _x }'),
    "an axiom of no model": task(
        'step s: llm.query { prompt: "{{«K112»axiom.0}}" output_var: _x }'.replace("«K112»axiom", "«K112»axiom")
    ),
    "a variable before its value": task(
        'step a: tool.run { cmd: "echo {{«K113»n}}" } step b: tool.run { cmd: "x" output_var: n }'
    ),
    "a variable that only one branch sets": agent(
        'step s { if trace.latest(Perf).tflops > 3 { x = 1 } tool.run { cmd: "echo {{«K114»x}}" } }'
    ),
    "a variable that only a loop sets": agent(
        'step s { for t in trace.all(Perf) { x = t.tflops } tool.run { cmd: "echo {{«K114»x}}" } }'
    ),
    "an output that nothing reads": task('step a: «K115»tool.run { cmd: "x" output_var: n }'),
    "two cases that are one word in SQL": (
        "system S { trace_schema { variant V { case P { x: float } «K116»case p { y: float } } } }"
    ),
    "two facts that are one word in SQL": knowledge(
        "fact isSlow(t: Perf) { return t.tflops < 3 } «K116»fact is_slow(t: Perf) { return t.tflops < 4 }"
    ),
    "two systems that are one word in SQL": "system MatMul { } «K116»system Mat_Mul { }",
    "two tables of one name": (
        "system A { trace_schema { variant V { case B_C { x: int } } } } "
        "system A_B { trace_schema { variant V { «K116»case C { x: int } } } }"
    ),
    "a field that every item has": "system S { trace_schema { variant V { case C { «K117»origin: string } } } }",
    "a source that is no text": (
        "system S { trace_schema { variant V { case C { «K117»source: int } case D { source: string } "
        'case E from "metrics.scalars" { origin: float? } } } }'
    ),
    # Types and units
    "a string and a number": fact('«K201»t.tflops == "3"'),
    "a boolean and a number": fact("«K201»t.ok > 3"),
    "two booleans in order": fact("«K201»t.ok > true"),
    "arithmetic on a string": fact("«K201»t.name * 2 > 3"),
    "a field of a number": fact("«K201»t.tflops.x > 3"),
    "a member of no list": fact("t.name in «K201»t.bound"),
    "a tool's text as a number": agent(f"step s {{ n = {_RUN} if «K201»n > 3 {{ {_RUN} }} }}"),
    "a length of a number": fact("len(«K201»t.tflops) > 3"),
    "an emitted value of the wrong kind": agent('step s { emit Check { passed: true, error: «K201»"big" } }'),
    "a state of the wrong kind": system('model { state best: float = «K201»"none" }'),
    "an assignment of the wrong kind": system(
        'model { state best: float = 0.0 } agent_loop L { step s { best = «K201»"x" } }'
    ),
    "a result of the wrong kind": system('function g(a: int): int { return «K201»"x" }'),
    "an argument of the wrong kind": system(
        "function g(a: int): int { return a } view v { sql: \"select {{g(«K201»'x')}}\" }"
    ),
    "an enum of two kinds": 'system S { trace_schema { variant V { case C { x: «K201»"a" | 1 } } } }',
    "a loop over no list": agent("step s { for x in «K201»trace.latest(Perf).tflops { " + _RUN + " } }"),
    "bytes per second and time": fact("t.latency > «K202»3 GB/s"),
    "a rate and a size": fact("t.size / t.latency > «K202»3 GB"),
    "a plain number and a time": fact("t.tflops > «K202»3 ms"),
    "a sum of size and time": fact("t.size + «K202»t.latency > 3"),
    "a smaller of size and time": fact("min(t.size, «K202»t.latency) > 3"),
    "an emitted size for a time": system(
        "trace_schema { variant V { case D { d: float in ms } } } agent_loop L { step s { emit D { d: «K202»3 GB } } }"
    ),
    "a timeout in bytes": agent('step s: tool.run { cmd: "x" timeout: «K202»3 GB }'),
    "an unknown unit of a field": "system S { trace_schema { variant V { case C { x: «K203»float in parsecs } } } }",
    "a value that the enum lacks": fact('t.bound == «K204»"memm"'),
    "a list with a value that the enum lacks": fact('t.bound in ["mem", «K204»"memm"]'),
    "an emitted value that the enum lacks": system(
        'trace_schema { variant V { case D { d: "a" | "b" } } } agent_loop L { step s { emit D { d: «K204»"c" } } }'
    ),
    "a choice that the design lacks": system(
        'design_space { softmax: ["online", "safe"] } knowledge { rule "R" { when: softmax == «K204»"onlne" apply: "x" } }'
    ),
    "too few arguments": fact("«K205»clamp(t.tflops, 1) > 3"),
    "too many arguments of a function": system(
        "function g(a: int): int { return a } function h(a: int): int { return «K205»g(a, a) }"
    ),
    "a fact on two items": knowledge(
        "fact f(t: Perf) { return t.tflops < 3 } fact g(t: Perf) { return «K205»f(t, t) }"
    ),
    "an aggregate of nothing": fact("«K205»avg() > 3"),
    "a comparison with null": fact("«K206»t.note == null"),
    "a division by zero": fact("t.tflops / «K207»0 > 3").replace("«K207»0 > 3", "«K207»0 > 3"),
    "a number as a condition": fact("«K208»t.tflops"),
    "a text as a condition": agent('step s { if «K208»"is_converged(trace.latest)" { ' + _RUN + " } }"),
    "a number in a conjunction": fact("t.ok and «K208»t.count"),
    "a unit on a string": "system S { trace_schema { variant V { case C { x: «K209»string in ms } } } }",
    # Facts and rules
    "an aggregate in an aggregate": fact("avg(«K301»max(t.tflops) over last 3) over last 5 > 3"),
    "an aggregate in an aggregate through a fact": knowledge(
        "fact g(t: Perf) { return avg(t.tflops) over last 3 > 1 } fact f(t: Perf) { return first(«K301»g(t)) over last 3 }"
    ),
    "a window in a rule": knowledge('rule "R" { when: «K302»count() over last 3 > 2 apply: "x" }'),
    "a window on a scalar function": fact("«K302»abs(t.tflops) over last 3 > 2"),
    "an unknown field to group by": fact("«K303»avg(t.tflops) over last 3 per nam > 2"),
    "a fact that calls itself": knowledge("«K304»fact f(t: Perf) { return t.ok or f(t) }"),
    "facts in a circle": knowledge("«K304»fact f(t: Perf) { return g(t) } «K304»fact g(t: Perf) { return f(t) }"),
    "a function that calls itself": system("«K304»function g(a: int): int { return g(a - 1) }"),
    "procedures in a circle": system(
        "«K304»procedure a(x: int) { b { x: x } } «K304»procedure b(x: int) { a { x: x } }"
    ),
    "a fact of contradictory bounds": fact("«K305»t.tflops > 5 && t.tflops < 3"),
    "a fact of contradictory bounds in other units": fact("«K305»t.latency > 5 s && t.latency < 3000"),
    "a fact between two whole numbers": fact("«K305»t.count > 3 && t.count < 4"),
    "a fact of two values": fact("«K305»t.bound == 'mem' && t.bound == 'compute'"),
    "a fact of excluded values": fact("«K305»t.bound != 'mem' && t.bound != 'compute'"),
    "a fact and its opposite": fact("«K305»t.ok && !t.ok"),
    "a fact of two orders": fact("«K305»t.tflops < t.speedup && t.tflops > t.speedup"),
    "a fact of a negative count": fact("«K305»count() over last 5 < 0"),
    "a constant fact": fact("«K305»1 > 2"),
    "a fact that is always unknown": fact("«K305»1 / «K207»0 > 2"),
    "a rule of contradictory facts": knowledge(
        'fact low(t: Perf) { return t.tflops < 3 } fact high(t: Perf) { return t.tflops > 5 } rule "R" { when: «K306»low && high apply: "x" }'
    ),
    "a rule of contradictory conditions in a list": knowledge(
        'fact low(t: Perf) { return t.tflops < 3 } rule "R" { when: [«K306»low(trace.latest), trace.latest(Perf).tflops >= 3] apply: "x" }'
    ),
    "a rule of a fact that never holds": knowledge(
        'fact no(t: Perf) { return «K305»t.tflops < 3 && t.tflops > 3 } rule "R" { when: «K306»no apply: "x" }'
    ),
    "a rule of a false condition": knowledge('rule "R" { when: «K306»false apply: "x" }'),
    "a hint of a false condition": knowledge('hint "H" { trigger: «K306»1 > 2 suggestion: "x" }'),
    "a rule that always fires": knowledge('rule "R" { when: «K307»1 < 2 apply: "x" }'),
    "a fact that always holds": fact("«K307»true"),
    "rules that contradict each other": knowledge(
        'fact low(t: Perf) { return t.tflops < 3 } rule "A" { when: low apply: "use swizzling" } «K308»rule "B" { when: low apply: "avoid swizzling" }'
    ),
    "rules of opposite values": knowledge(
        "fact low(t: Perf) { return t.tflops < 3 } fact lower(t: Perf) { return t.tflops < 2 }"
        ' rule "A" { when: low parameter tile: [64, 128] apply: "x" } «K308»rule "B" { when: lower parameter tile: [16] apply: "y" }'
    ),
    "rules of opposite directions": knowledge(
        'fact low(t: Perf) { return t.tflops < 3 } rule "A" { when: low optimize: maximize } «K308»rule "B" { when: low optimize: minimize }'
    ),
    "rules with opposite settings": knowledge(
        'rule "A" { when: trace.latest(Perf).tflops > 3 apply: { tile: 16 } } «K308»rule "B" { when: trace.latest(Perf).tflops > 4 apply: { tile: 32 } }'
    ),
    "rules of the same words and opposite advice": knowledge(
        'rule "A" { when: «K310»"it is slow" apply: "enable tma" } «K308»rule "B" { when: «K310»"It is slow." apply: "disable tma" }'
    ),
    "rules of the same condition": knowledge(
        'fact low(t: Perf) { return t.tflops < 3 } rule "A" { when: low apply: "x" } «K309»rule "B" { when: low apply: "y" }'
    ),
    "a condition in words": knowledge('rule "R" { when: «K310»"it looks slow" apply: "x" }'),
    "a rule without a condition": knowledge('«K311»rule "R" { apply: "x" }'),
    "a fact that reads the trace": fact("«K312»trace.latest.tflops > 3"),
    "a fact without its item": knowledge("fact g(t: Perf) { return t.ok } fact f(t: Perf) { return «K312»g }"),
    "a fact on another item": knowledge("fact g(t: Perf) { return t.ok } fact f(t: Perf) { return g(«K312»t.note) }"),
    "a fact that parses text": fact("«K312»number(t.name) > 3"),
    "a count of a condition": fact("«K313»count(t.tflops > 3) over last 5 > 2"),
    "an empty invariant": knowledge("«K315»invariant I { }"),
    "an impossible invariant": knowledge("invariant I { assert: «K316»Check.error < 1 && Check.error > 2 }"),
    # Loops
    "an unknown tool": task('step a: «K401»tool.runn { cmd: "x" }'),
    "an unknown model action": task('step a: «K401»llm.ask { prompt: "x" }'),
    "an unknown procedure": agent("step s { «K401»notee { text: 'x' } }"),
    "an unknown argument": task('step a: tool.run { cmd: "x" «K402»timout: 3 s }'),
    "an unknown argument of a procedure": system(
        "procedure p(x: int) { tool.read { path: 'a' } } agent_loop L { step s { p { x: 1 «K402»y: 2 } } }"
    ),
    "a missing argument": task('step a: «K403»tool.write { path: "x" }'),
    "a missing prompt": task('step a: «K403»llm.query { role: "x" }'),
    "a missing argument of a procedure": system(
        "procedure p(x: int) { tool.read { path: '{{x}}' } } agent_loop L { step s { «K403»p { } } }"
    ),
    "a wrong argument": task("step a: tool.run { cmd: «K404»3 }"),
    "a wrong choice": task('step a: tool.write { path: "x" content: "y" mode: «K404»"apend" }'),
    "a model in a service loop": system("service_loop W { on e(q) { «K405»llm.query { prompt: '{{q}}' } } }"),
    "a model in an engineering loop": sweep("step s: «K405»llm.query { prompt: 'x' }"),
    "a model behind a procedure": system(
        "procedure p(x: int) { q { x: x } } procedure q(x: int) { llm.query { prompt: '{{x}}' } }"
        " service_loop W { on e(n) { «K405»p { x: 1 } } }"
    ),
    "a missing field of an emit": agent("step s { «K406»emit Check { passed: true } }"),
    "an unknown field of an emit": agent("step s { emit Check { passed: true, error: 1.0, «K102»eror: 2.0 } }"),
    "a step after a return": agent(f"step a {{ return }} «K407»step b: {_RUN}"),
    "a statement after a return": agent(f"step a {{ return «K407»{_RUN} }}").replace("return «", "return; «"),
    "a statement after a return of both branches": agent(
        f"step a {{ if trace.latest(Perf).ok {{ return }} else {{ return }} «K407»{_RUN} }}"
    ),
    "a branch of a false condition": agent(f"step a {{ if 1 > 2 {{ «K407»{_RUN} }} }}"),
    "two prompts": task("step a: «K408»llm.query { prompt: 'x' prompt_template: 'y' }"),
    "an emit without cases": 'task T { step a: «K409»tool.run { cmd: "x" } -> emit }',
    "a procedure in a rule": system(
        "procedure p(x: int) { tool.read { path: '{{x}}' } } knowledge { rule 'R' { when: «K410»p(1) apply: 'x' } }"
    ),
    "a loop without steps": system("«K411»agent_loop L { }"),
    # Sweeps, spaces, artifacts, views
    "an empty sweep": sweep('parameter A: «K501»[] measure { cmd: "b {{A}}" metric: "tflops" objective: maximize }'),
    "an empty space": system("tuning_space { tile: «K501»[] }"),
    "a value outside of the tuning space": sweep(
        'parameter tile: [16, «K502»48] measure { cmd: "b {{tile}}" metric: "tflops" objective: maximize }',
        "tuning_space { tile: [16, 32] }",
    ),
    "a rule's value outside of the design space": system(
        'design_space { mask: ["none", "fused"] } knowledge { rule "R" { when: trace.latest(Perf).ok apply: { mask: «K502»"fussed" } } }'
    ),
    "a rule's value outside of a range": system(
        'tuning_space { n: range[1, 8] } knowledge { rule "R" { when: trace.latest(Perf).ok parameter n: [4, «K502»16] } }'
    ),
    "an impossible confidence": knowledge('fact f { description: "d" confidence: «K502»1.5 }'),
    "an unused parameter": sweep(
        'parameter A: [1] «K503»parameter B: [2] measure { cmd: "b {{A}}" metric: "tflops" objective: maximize }'
    ),
    "an unknown metric": sweep('parameter A: [1] measure { cmd: "b {{A}}" metric: «K504»"tflop" objective: maximize }'),
    "a metric that is no number": sweep(
        'parameter A: [1] measure { cmd: "b {{A}}" metric: «K504»"name" objective: maximize }'
    ),
    "an unknown objective": sweep(
        'parameter A: [1] measure { cmd: "b {{A}}" metric: "tflops" objective: «K505»maximise }'
    ),
    "a sweep that measures nothing": sweep("parameter A: [1]")
    .replace("engineering_loop E", "«K506»engineering_loop E")
    .replace("parameter A", "«K503»parameter A"),
    "a sweep without a metric": sweep('parameter A: [1] «K506»measure { cmd: "b {{A}}" objective: maximize }'),
    "a range that goes down": system("tuning_space { n: «K507»range[8, 1] }"),
    "a logarithmic range from zero": system("tuning_space { n: «K507»range[0, 1] log }"),
    "a value twice": system("tuning_space { n: [1, 2, «K508»1] }"),
    "a view without SQL": system("«K510»view v { description: 'x' }"),
    "a view of empty SQL": system("view v { «K510»sql: '  ' }"),
    "an artifact of nothing": system("build { «K511»artifact 'r.md' { } }"),
}
"""By what is wrong; `«K101»` stands right before the place of a finding and is no part of the source."""
