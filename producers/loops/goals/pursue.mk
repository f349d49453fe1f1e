# Reach a goal with tools: ask a model for the next step, take it, show it what came of it, until there is an answer.
system Pursuit {
  model {
    state goal: string = ""
    state params: map = {}
    state functions: list = []
    state tools: string = ""
    state move_form: string = ""
    state verdict_form: string = ""
    state rounds: list = []
    state judged: boolean = false
    state judged_by: string = "nobody"
    state course: string = "Nothing yet."
  }

  agent_loop Pursue {
    step pursue {
      for round in rounds {
        move = llm.query {
          role: "You reach a goal with tools, one step at a time. Take no step that the goal does not need."
          context: { "Tools": tools, "Done so far": course, "Parameters": params, "Goal": goal }
          prompt: "Give the next step: a tool with its arguments, or the answer once the goal is reached, or why you give up."
          schema: move_form
        }
        if is_known(move.answer) {
          if judged {
            verdict = llm.query {
              role: "You judge whether a goal was reached. Believe what was done, not what is claimed."
              context: { "Done": course, "Parameters": params, "Goal": goal, "Answer": move.answer }
              prompt: "Was the goal reached, and is the answer right?"
              schema: verdict_form
            }
            judged_by = "judge"
            if not verdict.reached { tool.give_up { why: "the judge says: {{verdict.why}}" } }
          }
          return move.answer
        }
        if is_known(move.give_up) { tool.give_up { why: move.give_up } }
        acted = tool.act { name: move.tool arguments: move.arguments }
        course = "{{course}}\n{{round}}. {{acted.shown}}"
      }
      tool.give_up { why: "there was no answer after {{len(rounds)}} steps" }
    }
  }
}
