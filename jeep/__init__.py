"""Joint knowledge editing of language models (JEEP, AAAI 2025), its baselines, and how to measure them."""
