"""The Python interface: a model, facts, an edit, and the truth about every fact. `import jeep` shows it.

It may import `tuning` and below.
"""

from jeep.api.editing import Edit, edit
from jeep.api.models import load, wrap
from jeep.api.tuning import Tuning, tune
from jeep.data.facts import Fact, Question

__all__ = ["Edit", "Fact", "Question", "Tuning", "edit", "load", "tune", "wrap"]
