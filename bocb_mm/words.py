"""How a number is said in a sentence."""


def counted(n: int, noun: str) -> str:
    """A number and its noun, whose plural takes an s.

    Example:
        >>> counted(1, 'table'), counted(20000, 'trial')
        ('1 table', '20,000 trials')
    """
    return f'{n:,} {noun}{"s" * (n != 1)}'
