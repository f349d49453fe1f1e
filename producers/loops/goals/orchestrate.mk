# Reach a goal by its parts: a model splits it, each part is pursued in its own cheapest way, and a model joins what came of them.
system Orchestration {
  model {
    state goal: string = ""
    state params: map = {}
    state functions: list = []
    state tools: string = ""
    state split_form: string = ""
    state join_form: string = ""
    state most: int = 8
    state course: string = "Nothing yet."
  }

  agent_loop Orchestrate {
    step split: llm.query {
      role: "You split a goal into parts that are pursued one after the other, each on its own, knowing nothing of the others."
      context: { "What a part can use": tools, "Parameters": params, "Goal": goal }
      prompt: "Give the parts in order. Say each as a goal with its values in it, and the same values as its parameters."
      schema: split_form
      output_var: split
    }

    step parts {
      if len(split.parts) == 0 { tool.give_up { why: "the goal was split into no parts" } }
      if len(split.parts) > most { tool.give_up { why: "the goal was split into {{len(split.parts)}} parts, and {{most}} are the most" } }
      for part in split.parts {
        done = tool.dispatch { goal: part.goal params: part.params }
        course = "{{course}}\n{{done.shown}}"
      }
    }

    step join {
      joined = llm.query {
        role: "You answer from what was done. Claim nothing else."
        context: { "Done": course, "Parameters": params, "Goal": goal }
        prompt: "Give the answer to the goal, or why it is not reached."
        schema: join_form
      }
      if is_known(joined.give_up) { tool.give_up { why: joined.give_up } }
      return joined.answer
    }
  }
}
