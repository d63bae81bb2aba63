"""The paper's figures, made from results files only."""
