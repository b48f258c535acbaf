"""How a request is signed for a provider: the only code that sees a credential."""
