"""The Python interface: a model, facts, an edit, and the truth about every fact. `import jeep` shows it.

It may import `editors`, `measure` and below.
"""

from jeep.api.edit import Edit, edit
from jeep.api.models import load, wrap
from jeep.data.facts import Fact, Question

__all__ = ["Edit", "Fact", "Question", "edit", "load", "wrap"]
