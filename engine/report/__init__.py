"""The error report: what an evaluation says about a model, as one page of HTML."""
