"""What a student's tokens are compared with: a teacher's scores from heads or prototypes, or its tokens themselves.

An objective is a module, so that its heads are trained and its buffers (centre, prototypes, frozen heads) live as long as
the run. One serves class tokens (DINO), another patch tokens (iBOT).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from eosin import joint

from .chunked import cross_entropy
from .heads import Head, frozen
from .prototypes import spherical_kmeans

Tokens = Sequence[torch.Tensor]  # (n, d) each, of one view each
Pairs = Sequence[tuple[int, int]]  # which view of the teacher teaches which of the student
EPS = 1e-4  # of batch norm in log-sum, as roymiles/Simple-Recipe-Distillation has for ResNets


@dataclass(frozen=True)
class Moment:
    """What changes with the step: the teacher's temperature, whether last layers still stand, the average's memory."""

    temperature: float
    standing: bool = False
    memory: float = 1.0


@dataclass(frozen=True)
class Constants:
    """What does not: the student's temperature, the centre's momentum, tokens a chunk."""

    temperature: float = 0.1
    momentum: float = 0.9
    chunk: int = 256


class Regression(nn.Module):
    """No head: the teacher's tokens themselves, through a linear projector.

    Args:
        how: `cosine` (1 - cos of the tokens, the teacher's mean token taken off), or `log-sum` (G2L's: the logarithm of the
            sum of |difference| ** alpha, both sides batch-normalised).
    """

    mean: torch.Tensor

    def __init__(self, dim: int, teacher_dim: int, how: str = "cosine", alpha: float = 4.0) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, teacher_dim)
        self.register_buffer("mean", torch.zeros(teacher_dim))
        self.how, self.alpha = how, alpha

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.projector(tokens)

    def fit(self, tokens: torch.Tensor) -> None:
        self.mean.copy_(tokens.mean(dim=0))

    def loss(self, teacher: Tokens, student: Tokens, pairs: Pairs, rows: Tokens, moment: Moment) -> torch.Tensor:
        ours, theirs = torch.cat([student[j] for _, j in pairs]), torch.cat([teacher[i] for i, _ in pairs])
        if self.how == "cosine":
            far = 1 - F.cosine_similarity(ours, theirs - self.mean, dim=1)
            return (torch.cat([rows[j] for _, j in pairs]) * far).sum() / len(pairs)
        difference = joint.batch_norm(ours, EPS) - joint.batch_norm(theirs, EPS)
        return joint.total(difference.abs().pow(self.alpha).sum()).log()


class Scores(nn.Module):
    """Cross-entropy of the student's scores with the teacher's, which are centred by a running mean over the joint batch.

    Subclasses say how the teacher's tokens become vectors and what prototypes score them.
    """

    centre: torch.Tensor

    def __init__(self, head: Head, constants: Constants) -> None:
        super().__init__()
        self.head, self.constants, self.coarse = head, constants, False
        self.register_buffer("centre", torch.zeros(len(head.direction)))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        self.coarse = torch.is_autocast_enabled(tokens.device.type)
        return self.head(tokens)

    def fit(self, tokens: torch.Tensor) -> None:
        pass

    def teach(self, tokens: torch.Tensor) -> torch.Tensor:
        """The teacher's tokens (n, d) as vectors that its prototypes score."""
        raise NotImplementedError

    def teacher_prototypes(self) -> torch.Tensor:
        raise NotImplementedError

    def loss(self, teacher: Tokens, student: Tokens, pairs: Pairs, rows: Tokens, moment: Moment) -> torch.Tensor:
        """sum over pairs of sum_i rows_i H(teacher_i, student_i), divided by the pairs; then the centre moves.

        Args:
            rows: of each view of the student, what each token counts.
        """
        with torch.no_grad():
            taught, prototypes = [self.teach(t) for t in teacher], self.teacher_prototypes()
        value = self._compare(self.head, taught, prototypes, student, pairs, rows, moment)
        self._centre(torch.cat(taught), prototypes)
        return value

    def _compare(self, head, taught, prototypes, student, pairs, rows, moment) -> torch.Tensor:
        head.stand(moment.standing)
        weights = head.weights()
        ours, theirs = torch.cat([student[j] for _, j in pairs]), torch.cat([taught[i] for i, _ in pairs])
        counts, at = torch.cat([rows[j] for _, j in pairs]) / len(pairs), self.constants
        return cross_entropy(
            ours, weights, theirs, prototypes, self.centre, counts, at.temperature, moment.temperature, at.chunk, self.coarse
        )  # fmt: skip

    @torch.no_grad()
    def _centre(self, taught: torch.Tensor, prototypes: torch.Tensor) -> None:
        """The mean score is the score of the mean vector: the last layer is linear."""
        count = joint.total(taught.new_tensor([float(len(taught))]))
        mean = joint.total(taught.sum(dim=0)) / count.clamp(min=1)
        moves = (1 - self.constants.momentum) * (count > 0)  # a batch without hidden patches says nothing
        self.centre.lerp_(prototypes @ mean, moves.to(self.centre.dtype))


class WithHead(Scores):
    """The teacher's own head, frozen: H0-mini as the paper has it."""

    def __init__(self, head: Head, constants: Constants, taught: Head) -> None:
        super().__init__(head, constants)
        self.taught = frozen(taught)

    def teach(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.taught(tokens)

    def teacher_prototypes(self) -> torch.Tensor:
        return self.taught.weights()


class WithPrototypes(Scores):
    """Prototypes that k-means found among the teacher's tokens, less their mean; scores are cosines.

    Args:
        dim: width of the teacher's tokens. rounds: of k-means.
    """

    mean: torch.Tensor
    prototypes: torch.Tensor

    def __init__(self, head: Head, constants: Constants, dim: int, rounds: int = 20) -> None:
        super().__init__(head, constants)
        self.rounds = rounds
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("prototypes", F.normalize(torch.randn(len(head.direction), dim), dim=1))

    def fit(self, tokens: torch.Tensor) -> None:
        self.mean.copy_(tokens.mean(dim=0))
        self.prototypes.copy_(spherical_kmeans(tokens - self.mean, len(self.prototypes), self.rounds))

    def teach(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.normalize(tokens - self.mean, dim=1)

    def teacher_prototypes(self) -> torch.Tensor:
        return self.prototypes


class WithLearnedHead(Scores):
    """A head that is learned on the frozen teacher's tokens by self-distillation, as DINO learns one on a network's.

    The learner predicts, from another view's class token or the same patch, the scores of its own moving average; that
    average is what the student gets. Gradients of the student's loss never reach it, so that both cannot agree on nothing.
    The teacher's mean token is taken off: where it is large, all tokens begin near one prototype and stay there.
    """

    mean: torch.Tensor

    def __init__(self, head: Head, constants: Constants, learner: Head) -> None:
        super().__init__(head, constants)
        self.learner, self.average = learner, frozen(copy.deepcopy(learner))
        self.register_buffer("mean", torch.zeros(learner.mlp[0].in_features))

    def fit(self, tokens: torch.Tensor) -> None:
        self.mean.copy_(tokens.mean(dim=0))

    def teach(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.average(tokens - self.mean)

    def teacher_prototypes(self) -> torch.Tensor:
        return self.average.weights()

    def loss(self, teacher: Tokens, student: Tokens, pairs: Pairs, rows: Tokens, moment: Moment) -> torch.Tensor:
        with torch.no_grad():
            learned = dict(self.learner.named_parameters())
            for name, mean in self.average.named_buffers():
                mean.lerp_(learned[name], 1 - moment.memory)
            taught, prototypes = [self.teach(t) for t in teacher], self.teacher_prototypes()
        among = [(i, j) for i, j in pairs if j < len(teacher)]
        guesses = [self.learner(t - self.mean) for t in teacher]
        own = self._compare(self.learner, taught, prototypes, guesses, among, rows, moment)
        return own + super().loss(teacher, student, pairs, rows, moment)
