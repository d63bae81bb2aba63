"""The paper's probes: the logit lens on original and new answers, and on sets of words (§4.1, Appendix A).

It may import `model` and below.
"""
