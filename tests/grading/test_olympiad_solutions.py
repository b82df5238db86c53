"""Where the published worked solutions of OlympiadBench state the published answers, and how far a rule finds them.

They have no box, and most are proofs that mark no result. A rule that does not know the answer, the last formula with a
value in bold or else the last formula (`by_rule`), finds it in 416 of 675 (61.6 %). That is all that is extracted. For
the others the answer's place is kept, found with the answer at hand:

- olympiadbench_marks.txt: the place where the second grader found the published answer, the last one as a rule; its
  surroundings were read. That what stands there agrees is by construction;
- `READ`: words that state it in another form, quoted;
- `NOT_STATED`: solutions without it, each with its reason.

Bold type and last formulas are of this file alone: for the extractor they say nothing. It finds an answer in words in
75 solutions, which are looked at for what they show of that, and held to no bar. The file is not part of the
repository: the tests run where it is.
"""

import itertools
import re
from pathlib import Path

import pytest

from tests.grading.test_worked_solutions import FOLDER, FORMULAS, last_side, solved
from w2sr_jax.grading.answers import extract
from w2sr_jax.grading.grade import grade_many
from w2sr_jax.grading.second import at_commas, second_equal

MARKS = Path(__file__).parent / "olympiadbench_marks.txt"
# Sentences that name something else than the published answer.
_ELSEWHERE = "the sentence names a method, a condition or a quantity; the value stands elsewhere"
_FORMULA = "the sentence names an unevaluated expression; the value stands elsewhere"
_CHAIN = "an equation chain with a side that is not the published value as written"
OLYMPIAD_EXCEPTIONS = {
    "olympiadbench/1641": _ELSEWHERE,
    "olympiadbench/1695": _ELSEWHERE,
    "olympiadbench/1918": _FORMULA,
    "olympiadbench/1977": _FORMULA,
    "olympiadbench/2643": _CHAIN,
    "olympiadbench/2760": _CHAIN,
    "olympiadbench/2781": _FORMULA,
    "olympiadbench/2785": _ELSEWHERE,
    "olympiadbench/2854": _ELSEWHERE,
    "olympiadbench/2857": _FORMULA,
    "olympiadbench/3007": _ELSEWHERE,
    "olympiadbench/3009": _CHAIN,
    "olympiadbench/3014": _CHAIN,
    "olympiadbench/3095": _FORMULA,
}
_BOLD = re.compile(r"\\(?:mathbf|boldsymbol)\s*\{[^{}]*(?:\d|\\pi)[^{}]*\}")  # a value: vectors are letters
_LAYOUT = re.compile(r"\\(?:begin|end)\{aligned\}|&")
_NUMBERS = re.compile(r"-?\d[\d,]*\.?\d*")
_PIECES = re.compile(r"\\\\|;|\\q?quad|\\text\s*\{ *(?:and|or) *\}")
_RELATIONS = re.compile(
    r"=|<|>|\\(?:equiv|approx|Rightarrow|Longrightarrow|leqslant|geqslant|leq?|geq?|in|to|text\s*\{[^{}]*\})(?![A-Za-z])"
)


# Solutions that state it in another form, in parts or for every n: the words, and how they read for the problem.
READ = {
    1641: ([r"\left(\begin{array}{c}2 n \\ n\end{array}\right)"], r"\binom{2 n}{n}"),
    1724: (["we have a unique arrangement of blocks", "we find exactly one more arrangement of kings"], "2"),
    1737: (
        [r"| $n=3$ | $m^{2}-15 m+54=0$ | 9 | $m=6$ and $m=9$ |", "| $n=5$ |", "| $m=9$ and $m=54$ |"],
        "(6,3),(9,3),(9,5),(54,5)",
    ),
    1760: (
        [r"\angle B E A_{1}=\angle A E B_{1}=90^{\circ}"],
        r"\angle B E A_{1}=90^{\circ},\angle A E B_{1}=90^{\circ}",
    ),
    1782: (["First suppose that there are $n(n-1)-1$ marbles."], "n(n-1)-1"),
    1828: (["Luciano will draw exactly $3(n-1)$ segments"], "3(2017-1)"),
    1930: (
        ["Note that the equation is symmetric.", "the only solution is $(a, b, c)=(3,2,1)$"],
        "(3,2,1),(3,1,2),(2,3,1),(2,1,3),(1,3,2),(1,2,3)",
    ),
    1940: ([r"each of the functions $x \mapsto x$ and $x \mapsto 2-x$ satisfies (1)"], "x, 2-x"),
    1953: ([r"B T=\sqrt{2} B M"], r"\sqrt{2}"),
    1962: (
        [
            "There are sixteen such triples, namely $(2,2,2)$, the three permutations of $(2,2,3)$, and the six "
            "permutations of each of $(2,6,11)$ and $(3,5,7)$"
        ],
        ",".join(
            ",".join(str(triple).replace(" ", "") for triple in sorted(set(itertools.permutations(numbers))))
            for numbers in ((2, 2, 2), (2, 2, 3), (2, 6, 11), (3, 5, 7))
        ),
    ),
    2006: (["there cannot ever be more majestic trees than coloured squares, which is $5 N^{2}$"], r"5 \cdot 674^{2}"),
    2022: ([r"giving $7 \leqslant n<11$", r"but 8 ! $\nmid \prod_{p<q \leqslant 7}(p+q)$"], "7"),
    2029: ([r"So $f(x) \equiv 1$ is the unique function"], "1"),
    2082: (["the largest possible number $k$ of indices satisfying the given condition is one"], "1"),
    2243: (["no intersection points when $k<-5$"], "k<-5"),
    2298: (
        [r"those $x$ with $-\sqrt{11}<x<-2$ and those $x$ with $\sqrt{11}<x<9$"],
        r"-\sqrt{11}<x<-2 \text{ or } \sqrt{11}<x<9",
    ),
    2371: (["an expression for $g(x)$ is $x^{2}-2 x+2$"], "x^{2}-2 x+2"),
    2375: ([r"are $x=1$ and $x=\frac{3 \pm \sqrt{21}}{2}$"], r"x=1 \text{ and } x=\frac{3 \pm \sqrt{21}}{2}"),
    2410: ([r"exactly when $\frac{1}{2} \leq x \leq 8$"], r"\frac{1}{2} \leq x \leq 8"),
    2502: ([r"Therefore, $-1 \leq k \leq-\frac{1}{2}$"], r"-1 \leq k \leq-\frac{1}{2}"),
    2570: (["$a=27, b=20$ and $c=13$", "$a=18, b=20$ and $c=22$"], "(27,20,13),(18,20,22)"),
    2578: (["$4: 6$ which is equivalent to $2: 3$"], "2:3"),
    2592: ([r"4.2 \%"], "4.2"),
}
# Of those, what is the same to the first grader only: inequalities and intervals, f(x) = x and x, the order of tuples.
SECOND_DISAGREES = {1782, 1930, 1940, 2029, 2243, 2298, 2371, 2375, 2410, 2502, 2578}
# Solutions that do not state it: the reason.
_LEFT = "the text refers to an answer stated outside of it; "
NOT_STATED = {
    1775: "it proves k + 1, where 2^k <= n < 2^(k+1)",
    1883: "it proves |S| >= d + 1, where n is 2d - 1 or 2d",
    1938: _LEFT + '"the successor function" is one of its two',
    1964: "it proves that no function is 1-good and that one is 2-good",
    1965: _LEFT + "it proves f(x) = ax after f(0) = 0 is assumed",
    1969: _LEFT + "it proves f(m) = Am + beta, A = 2, beta = C, where C = 1007",
    1970: "it proves that -C is a value for every C > 0, and that b = 1",
    1974: "it proves that n > l^2 is the condition for a square of side l",
    2024: _LEFT + '"the values p = 2, 3 lead to the claimed solutions"',
    2045: "it proves that all t <= 4 satisfy the conditions",
    2193: "it ends in m = 2 or m = 10, where 1 and 2 are published",
    2498: "the published answer is misprinted: `1/2, sqrt(x)` for half the root, which the solution has",
}


@pytest.fixture(scope="module")
def olympiad():
    """number -> (problem, worked solution)."""
    if not (FOLDER / "olympiadbench.jsonl").is_file():
        pytest.skip("needs the published OlympiadBench file")
    return {int(problem.id.removeprefix("olympiadbench/")): (problem, s) for problem, s in solved("olympiadbench")}


@pytest.fixture(scope="module")
def marks():
    """number -> the places that state its answer."""
    lines = [line.split() for line in MARKS.read_text().splitlines() if not line.startswith("#")]
    return {int(number): [tuple(map(int, place.split("."))) for place in places] for number, *places in lines}


def by_rule(solution):
    """What the last formula with a value in bold ends in, or else the last formula; None without a formula."""
    formulas = [display or inline for display, inline in FORMULAS.findall(solution)]
    if bold := [formula for formula in formulas if _BOLD.search(formula)]:
        return re.split(r"=|\\equiv", _LAYOUT.sub("", bold[-1]))[-1].strip(" .\n")
    return last_side(solution) if formulas else None


def places(solution):
    """Every formula, and every number outside of one, in order."""
    found, end = [], 0
    for formula in FORMULAS.finditer(solution):
        found += _NUMBERS.findall(solution[end : formula.start()])
        found.append(formula[1] or formula[2])
        end = formula.end()
    return found + _NUMBERS.findall(solution[end:])


def parts(formula):
    """The formula itself, the sides of its relations and the elements of its lists, each once."""
    found = []
    for piece in _PIECES.split(_LAYOUT.sub("", formula)):
        for side in (one.strip(" .,:\n") for one in (piece, *_RELATIONS.split(piece))):
            found += [side, *(item.strip(" .\n") for item in at_commas(side))]
    return list(dict.fromkeys(filter(None, found)))


def marked(solution, marks):
    """What stands at the places."""
    found = places(solution)
    return ", ".join(parts(found[place])[part] for place, part in marks)


def agreeing(answers, olympiad):
    """(numbers whose answers the first grader takes for the published ones, those of the second)."""
    grades = grade_many([(rf"\boxed{{{x}}}", olympiad[n][0].answer) for n, x in answers.items()], deadline_s=60.0)
    seconds = {n for n, x in answers.items() if second_equal(x, olympiad[n][0].answer)}
    return {n for n, grade in zip(answers, grades, strict=True) if grade.correct}, seconds


def test_all_solutions_but_twelve_state_the_published_answer(olympiad, marks):
    assert not any(r"\boxed" in solution for _, solution in olympiad.values())
    others = {*marks, *READ, *NOT_STATED}
    assert len(others) == len(marks) + len(READ) + len(NOT_STATED)
    ruled = {n: by_rule(solution) for n, (_, solution) in olympiad.items() if n not in others}
    assert agreeing(ruled, olympiad) == (set(ruled), set(ruled))
    found = {n: marked(olympiad[n][1], marks[n]) for n in marks}
    assert agreeing(found, olympiad) == (set(found), set(found))
    read = {n: text for n, (_, text) in READ.items()}
    assert agreeing(read, olympiad) == (set(read), set(read) - SECOND_DISAGREES)
    assert {n: q for n, (quotes, _) in READ.items() if (q := [x for x in quotes if x not in olympiad[n][1]])} == {}
    assert (len(ruled), len(found), len(read), len(NOT_STATED)) == (416, 224, 23, 12)
    assert len(olympiad) == 675


def test_values_in_bold_agree_but_for_two(olympiad):
    bold = {n: by_rule(solution) for n, (_, solution) in olympiad.items() if _BOLD.search(solution)}
    assert len(bold) == 237
    wrong = {2010, 2771}  # a bold 0 that is a vector; one of two values
    assert agreeing(bold, olympiad) == (set(bold) - wrong, set(bold) - wrong)


def test_no_answer_is_marked_that_both_graders_find_by_the_rule(olympiad, marks):
    ruled = {n: by_rule(olympiad[n][1]) or "" for n in marks}
    assert set.intersection(*agreeing(ruled, olympiad)) == set()


def test_many_sentences_of_olympiadbench_name_its_answer(olympiad):
    named = [(problem, solution) for problem, solution in olympiad.values() if extract(solution) is not None]
    grades = grade_many([(solution, problem.answer) for problem, solution in named], deadline_s=60.0)
    assert len(named) == 75
    wrong = {problem.id for (problem, _), grade in zip(named, grades, strict=True) if not grade.correct}
    assert wrong == set(OLYMPIAD_EXCEPTIONS)
