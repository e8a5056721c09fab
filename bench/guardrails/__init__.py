"""How the guardrails do over made-up traffic: false rollbacks of equal candidates, and how soon harm is found."""
