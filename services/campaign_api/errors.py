"""What can keep campaign_api from starting, besides its settings and its database being away."""


class IndexConflictError(RuntimeError):
    """Say that an index of ours exists in another form; an operator has to drop one of the two."""
