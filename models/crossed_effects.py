"""Ratings of lectures, simulated: three crossed effects, in the shape of lme4's InstEval.

    rating_i ~ Normal(μ + s_j + d_k + u_l, σ),   j = student_i, k = instructor_i, l = department_i
    s_j ~ Normal(0, τ_student),   d_k ~ Normal(0, τ_instructor),   u_l ~ Normal(0, τ_department)

Parameters: `mu` = μ, `sd_student`, `sd_instructor`, `sd_department`, `sigma` = σ.
Latents: `student_effect` (students,), `instructor_effect` (instructors,), `department_effect` (departments,). With them
free, hold the scales: at τ → 0 the joint density has no bound.

`load_data` takes `rows`, `students`, `instructors`, `departments` and `seed`; the defaults are InstEval's sizes.
Ratings are as numbers here, not rounded to five marks; students and instructors differ in how often they occur, each at
least once, and a tenth of the lectures is given for another department than the instructor's own.
Reference: Bates, Mächler, Bolker & Walker (2015), lme4, J. Statistical Software 67(1): data set InstEval.
"""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

TRUE_MU, TRUE_SIGMA = 3.25, 1.2
TRUE_SD_STUDENT, TRUE_SD_INSTRUCTOR, TRUE_SD_DEPARTMENT = 0.3, 0.5, 0.25
OTHER_DEPARTMENT = 0.1


def model(
    rating: Tensor,
    student: Tensor,
    instructor: Tensor,
    department: Tensor,
    n_students: int,
    n_instructors: int,
    n_departments: int,
) -> None:
    """rating, student, instructor and department (rows,); the last three count from 0."""
    mu = pyro.param("mu", torch.tensor(3.0))
    sd_student = pyro.param("sd_student", torch.tensor(0.5), constraint=constraints.positive)
    sd_instructor = pyro.param("sd_instructor", torch.tensor(0.5), constraint=constraints.positive)
    sd_department = pyro.param("sd_department", torch.tensor(0.5), constraint=constraints.positive)
    sigma = pyro.param("sigma", torch.tensor(1.0), constraint=constraints.positive)

    with pyro.plate("students", n_students):
        student_effect = pyro.sample("student_effect", dist.Normal(0.0, sd_student))  # (students,)
    with pyro.plate("instructors", n_instructors):
        instructor_effect = pyro.sample("instructor_effect", dist.Normal(0.0, sd_instructor))  # (instructors,)
    with pyro.plate("departments", n_departments):
        department_effect = pyro.sample("department_effect", dist.Normal(0.0, sd_department))  # (departments,)

    mean = mu + student_effect[student] + instructor_effect[instructor] + department_effect[department]
    with pyro.plate("rows", len(rating)):
        pyro.sample("rating", dist.Normal(mean, sigma), obs=rating)


def load_data(
    rows: int = 73_421, students: int = 2972, instructors: int = 1128, departments: int = 14, seed: int = 0
) -> dict[str, Tensor | int]:
    """The model's arguments."""
    generator = torch.Generator().manual_seed(seed)
    student = draw_levels(rows, students, generator)
    instructor = draw_levels(rows, instructors, generator)
    own = draw_levels(instructors, departments, generator)
    elsewhere = torch.randint(departments, (rows,), generator=generator)
    department = torch.where(torch.rand(rows, generator=generator) < OTHER_DEPARTMENT, elsewhere, own[instructor])

    rating = TRUE_MU + TRUE_SIGMA * torch.randn(rows, generator=generator)
    for level, count, sd in (
        (student, students, TRUE_SD_STUDENT),
        (instructor, instructors, TRUE_SD_INSTRUCTOR),
        (department, departments, TRUE_SD_DEPARTMENT),
    ):
        rating += sd * torch.randn(count, generator=generator)[level]
    return {
        "rating": rating,
        "student": student,
        "instructor": instructor,
        "department": department,
        "n_students": students,
        "n_instructors": instructors,
        "n_departments": departments,
    }


def draw_levels(rows: int, levels: int, generator: torch.Generator) -> Tensor:
    """A level a row, (rows,): every level once, the rest at random, by weights between 0 and 1."""
    weights = torch.rand(levels, generator=generator)
    more = torch.multinomial(weights, rows - levels, replacement=True, generator=generator)
    return torch.cat([torch.arange(levels), more])[torch.randperm(rows, generator=generator)]
