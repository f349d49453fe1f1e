// Ask a model for a verdict in a declared form, act on it, and keep what it said.
//
//   morphogen loop run ask.mk --live --workspace . --backend script -o file=ask.replies.toml
//   morphogen loop run ask.mk --live --workspace . --backend openai -o base_url=http://127.0.0.1:11434/v1 -o model=llama3.2
//   morphogen loop run ask.mk --live --workspace .      suspends; `morphogen loop answer` goes on with it

system_model Reviewer {
  axiom: "a change without a test is not done"
  heuristic: "a small change is easier to judge than a large one"
}

system Review {
  model {
    type Verdict matches {
      verdict: "accept" | "revise",
      score: float,           // 0 to 1
      reasons: [string],
      question: string?       // where something has to be asked first
    }
  }

  agent_loop Judge {
    // enforced before a call is made, at the worst that it could take
    budget: { calls: 4, tokens: 20000, on_breach: "suspend" }

    step change: tool.read { path: "change.txt" output_var: change }

    step judge: llm.query {
      role: "You review changes. You are brief and fair."
      context: ["{{change}}"]
      prompt: "Is this change ready?"
      returns: "Verdict"      // a wrong answer is sent back, twice at most
      temperature: 0
      max_tokens: 300
      output_var: review
    }

    step keep {
      if review.verdict == "accept" {
        tool.write { path: "review.txt" content: "accepted with {{review.score}}" }
      } else {
        tool.write { path: "review.txt" content: "to be revised: {{review.reasons}}" }
      }
    }

    success: file_exists("review.txt") review.score >= 0.5
  }
}
