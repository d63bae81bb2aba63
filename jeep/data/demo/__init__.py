"""The embedded demonstration: facts made from data packages, and a small model trained to know them."""
