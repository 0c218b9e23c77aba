"""The rows of ``migrating.md``: what to write in place of other rerankers. Run this module to write the page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

__all__ = ["NOT_RERANKERS", "PAGE", "ROWS", "Row", "render"]

PAGE = Path(__file__).with_name("migrating.md")


class Row(NamedTuple):
    """A reranker's class, and what takes its place.

    Attributes:
        package: that has the class.
        name: of the class.
        top_n: its default; None where it returns all documents, "" where it depends or has none.
        code: what to write instead.
        differs: what else is called or set otherwise.
    """

    package: str
    name: str
    top_n: int | str | None
    code: str
    differs: str = ""


_ANY = "`theirs` is the object that you have"


def _lc(package: str, name: str, top_n: int | str | None, model: str, differs: str = "", options: str = "") -> Row:
    return Row(package, name, top_n, f'RerankCompressor(model="{model}"{_options(top_n, options)})', differs)


def _li(package: str, name: str, top_n: int | str | None, model: str, differs: str = "", options: str = "") -> Row:
    full = f"llama-index-postprocessor-{package}" if package != "llama-index-core" else package
    return Row(full, name, top_n, f'RerankPostprocessor(model="{model}"{_options(top_n, options)})', differs)


def _options(top_n: int | str | None, options: str) -> str:
    count = "" if top_n in ("", 5) else f", top_n={top_n}"
    return count + (f", {options}" if options else "")


_COMMUNITY, _CLASSIC = "langchain-community", "langchain-classic"
ROWS: dict[str, list[Row]] = {
    "LangChain": [
        _lc(
            _COMMUNITY,
            "DashScopeRerank",
            3,
            "dashscope:qwen3-rerank",
            "its default is `gte-rerank`; `dashscope_api_key` → `api_key`",
        ),
        _lc(
            _COMMUNITY,
            "FlashrankRerank",
            3,
            "embedded",
            'or `"onnx:<hub id or folder>"` with the model that you had; `score_threshold` (0.0) the same; '
            "`prefix_metadata` → `score_key`; `client` has no equivalent",
        ),
        Row(
            _COMMUNITY,
            "HuggingFaceCrossEncoder",
            "",
            'RerankCompressor(model="cross-encoder:BAAI/bge-reranker-base", top_n=3)',
            "with the `CrossEncoderReranker` around it; `model_name` → `model`; `model_kwargs` → `model_options`",
        ),
        _lc(
            _COMMUNITY,
            "InfinityRerank",
            3,
            "infinity:http://localhost:7997#BAAI/bge-reranker-base",
            "`client` → the address",
        ),
        _lc(
            _COMMUNITY, "JinaRerank", 3, "jina:jina-reranker-v3.5", "its default is v1; `jina_api_key` → `api_key`"
        ),
        _lc(
            _COMMUNITY,
            "OpenVINOReranker",
            4,
            "onnx:BAAI/bge-reranker-v2-m3",
            "`model_name_or_path` → `model`; needs the extra `openvino`",
            'model_options={"runtime": "openvino"}',
        ),
        Row(
            _COMMUNITY,
            "RankLLMRerank",
            3,
            "RerankCompressor(reranker=ChatModelScorer(chat_model), top_n=3)",
            "`model`, `gpt_model` → any chat model; `step_size` has no equivalent",
        ),
        Row(
            _COMMUNITY,
            "SagemakerEndpointCrossEncoder",
            "",
            "RerankCompressor(reranker=CompressorScorer(cross_encoder), top_n=3)",
            f"SageMaker has no rerank format of its own: {_ANY.replace('theirs', 'cross_encoder')}",
        ),
        Row(
            _COMMUNITY,
            "VolcengineRerank",
            3,
            "RerankCompressor(reranker=CompressorScorer(theirs), top_n=3)",
            f"its requests are signed in a way of their own: {_ANY}",
        ),
        Row(
            _CLASSIC,
            "CohereRerank",
            3,
            'RerankCompressor(model="cohere:rerank-v3.5", top_n=3)',
            "`cohere_api_key` → `api_key`; `client` → `base_url`",
        ),
        Row(
            _CLASSIC,
            "CrossEncoderReranker",
            3,
            'RerankCompressor(model="cross-encoder:BAAI/bge-reranker-base", top_n=3)',
            "of a `BaseCrossEncoder` of your own `reranker=CompressorScorer(cross_encoder)`",
        ),
        Row(
            _CLASSIC,
            "LLMListwiseRerank",
            3,
            "RerankCompressor(reranker=ChatModelScorer(chat_model), top_n=3)",
            "`from_llm(llm)` → `ChatModelScorer(llm)`; scores are grades, so thresholds apply",
        ),
        Row(
            _CLASSIC,
            "EmbeddingsFilter",
            20,
            "RerankCompressor(score_threshold=0.5, top_n=20)",
            "`k` → `top_n`; `similarity_threshold` → `score_threshold`, of relevance and not of similarity",
        ),
        Row(
            _CLASSIC,
            "LLMChainFilter",
            None,
            "RerankCompressor(reranker=ChatModelScorer(chat_model), score_threshold=0.5, top_n=None)",
            "a grade per document in place of yes or no",
        ),
        Row(
            _CLASSIC,
            "ContextualCompressionRetriever",
            "",
            "RerankRetriever(retriever=retriever, compressor=RerankCompressor())",
            "`base_retriever` → `retriever`, `base_compressor` → `compressor`, which may be any",
        ),
        Row(
            _CLASSIC,
            "DocumentCompressorPipeline",
            "",
            "RerankRetriever(retriever=retriever, compressor=pipeline)",
            "stays as it is; ours may be one of its `transformers`",
        ),
        Row(
            _CLASSIC,
            "EnsembleRetriever",
            None,
            "HybridRetriever(retrievers=[retriever, retriever], weights=[0.5, 0.5])",
            "the best first, fused by ranks as there",
        ),
        Row(
            _CLASSIC,
            "LongContextReorder",
            None,
            'RerankCompressor(order="edges", top_n=None)',
            "reranked first, and then the best at both ends",
        ),
        Row(
            _CLASSIC,
            "EmbeddingsRedundantFilter",
            None,
            "RerankCompressor(collapse_duplicates=True, top_n=None)",
            "equal texts; of similar ones `diversity=` keeps few",
        ),
        _lc("langchain-cohere", "CohereRerank", 3, "cohere:rerank-v3.5", "`cohere_api_key` → `api_key`"),
        _lc(
            "langchain-voyageai",
            "VoyageAIRerank",
            None,
            "voyage:rerank-2.5",
            "`top_k` → `top_n`; `voyage_api_key` → `api_key`; `truncation` → `model_options`",
        ),
        _lc(
            "langchain-aws",
            "BedrockRerank",
            3,
            "bedrock:cohere.rerank-v3-5:0",
            "`model_arn` → the model's id or its ARN; `region_name`, `credentials_profile_name` → `region`, "
            "`profile` in `model_options`; keys from the environment",
            'model_options={"region": "us-west-2"}',
        ),
        _lc(
            "langchain-oci",
            "OCIGenAIRerank",
            3,
            "oci:cohere.rerank-v4.0-fast",
            "`model_id` → `model`; `service_endpoint` → `base_url`; `compartment_id`, `auth_profile`, "
            "`auth_file_location`, `max_tokens_per_document` → `compartment_id`, `profile`, `config_file`, "
            "`max_tokens_per_doc` in `model_options`; for `auth_type`s but `API_KEY` `CompressorScorer(theirs)`",
            'model_options={"compartment_id": "ocid1.compartment.oc1..…"}',
        ),
        _lc(
            "langchain-nvidia-ai-endpoints",
            "NVIDIARerank",
            5,
            "nvidia:nvidia/llama-nemotron-rerank-1b-v2",
            "logits there, scores in [0, 1] here; `nvidia_api_key` → `api_key`; `truncate` is `END`; "
            "`max_batch_size` → `documents_per_request` in `model_options`",
        ),
        _lc(
            "langchain-google-community",
            "VertexAIRank",
            10,
            "vertex:semantic-ranker-default-004",
            "its default is `semantic-ranker-512@latest`; `project_id` → the variable `GOOGLE_CLOUD_PROJECT`; "
            "`credentials` → `api_key`, a function",
            "api_key=token",
        ),
        _lc(
            "langchain-pinecone",
            "PineconeRerank",
            3,
            "pinecone:bge-reranker-v2-m3",
            "`pinecone_api_key` → `api_key`",
        ),
        _lc(
            "langchain-ibm",
            "WatsonxRerank",
            None,
            "watsonx:cross-encoder/ms-marco-minilm-l-12-v2",
            "`model_id` → `model`; `url`, `project_id` → the variables `WATSONX_URL`, `WATSONX_PROJECT_ID`; "
            "`api_key` "
            "→ an IAM token as `api_key`, a function",
            "api_key=token",
        ),
        _lc(
            "langchain-contextual",
            "ContextualRerank",
            None,
            "contextual:ctxl-rerank-v2-instruct-multilingual",
            "its default is v1",
        ),
        _lc(
            "langchain-localai",
            "LocalAIRerank",
            3,
            "http:http://localhost:8080/v1#bge-reranker-v2-m3",
            "any server with the endpoint `/v1/rerank`; `openai_api_base` → the address, with `/v1`",
        ),
    ],
    "LlamaIndex": [
        Row(
            "llama-index-core",
            "LLMRerank",
            10,
            "RerankPostprocessor(reranker=LLMScorer(llm, window=10), top_n=10)",
            "`choice_batch_size` (10) → `window` (20); grades from 0 to 10 are scores from 0 to 1",
        ),
        Row(
            "llama-index-core",
            "StructuredLLMRerank",
            10,
            "RerankPostprocessor(reranker=LLMScorer(llm, window=10), top_n=10)",
            "the same",
        ),
        _li(
            "llama-index-core",
            "SentenceTransformerRerank",
            2,
            "cross-encoder:BAAI/bge-reranker-base",
            "its default is `cross-encoder/stsb-distilroberta-base`; `keep_retrieval_score` the same; `device`, "
            "`trust_remote_code` → `model_options`",
        ),
        Row(
            "llama-index-core",
            "SimilarityPostprocessor",
            None,
            "RerankPostprocessor(score_threshold=0.5, top_n=None)",
            "`similarity_cutoff` → `score_threshold`, of relevance and not of similarity",
        ),
        Row(
            "llama-index-core",
            "LongContextReorder",
            None,
            'RerankPostprocessor(order="edges", top_n=None)',
            "reranked first, and then the best at both ends",
        ),
        Row(
            "llama-index-postprocessor-alibabacloud-aisearch-rerank",
            "AlibabaCloudAISearchRerank",
            3,
            'RerankPostprocessor(model="dashscope:qwen3-rerank", top_n=3)',
            "the same company's other service; or `reranker=PostprocessorScorer(theirs)`",
        ),
        _li(
            "bedrock-rerank",
            "BedrockRerank",
            2,
            "bedrock:cohere.rerank-v3-5:0",
            "once `AWSBedrockRerank`; `rerank_model_name` or `rerank_model_arn` → `model`; `region_name`, "
            "`profile_name`, `max_retries` (10) → `region`, `profile`, `max_retries` (4) in `model_options`; keys "
            "from the environment",
            'model_options={"region": "us-west-2"}',
        ),
        _li(
            "cohere-rerank",
            "CohereRerank",
            2,
            "cohere:rerank-v3.5",
            "its default is `rerank-english-v3.0`; `max_retries` (10) → `model_options` (4)",
        ),
        Row(
            "llama-index-postprocessor-colbert-rerank",
            "ColbertRerank",
            5,
            "RerankPostprocessor(reranker=PostprocessorScorer(theirs))",
            f'{_ANY}; or `model="late:colbert-ir/colbertv2.0"`, which scores as ColBERT does, with its projection',
        ),
        _li(
            "contextual-rerank",
            "ContextualRerank",
            2,
            "contextual:ctxl-rerank-v2-instruct-multilingual",
            "its default is v1; takes `instruction` in `model_options`",
        ),
        _li("dashscope-rerank", "DashScopeRerank", 3, "dashscope:gte-rerank-v2", "its default is `gte-rerank`"),
        _li(
            "flag-embedding-reranker",
            "FlagEmbeddingReranker",
            2,
            "cross-encoder:BAAI/bge-reranker-large",
            "logits there, scores in [0, 1] here; `use_fp16` → `dtype` in `model_options`",
        ),
        _li(
            "flashrank-rerank",
            "FlashRankRerank",
            20,
            "embedded",
            'or `"onnx:<hub id or folder>"` with the model that you had; `max_length` → `model_options`',
        ),
        _li(
            "google-rerank",
            "GoogleRerank",
            2,
            "vertex:semantic-ranker-default-004",
            "`project_id` → the variable `GOOGLE_CLOUD_PROJECT`; `credentials` → `api_key`, a function",
            "api_key=token",
        ),
        Row(
            "llama-index-postprocessor-heroku-rerank",
            "HerokuRerank",
            "",
            'RerankPostprocessor(model="http:https://us.inference.heroku.com/v1#MODEL", api_key=token)',
            "its service speaks Cohere's format; `base_url` is in the name",
        ),
        _li(
            "ibm",
            "WatsonxRerank",
            None,
            "watsonx:cross-encoder/ms-marco-minilm-l-12-v2",
            "`url`, `project_id` → the variables `WATSONX_URL`, `WATSONX_PROJECT_ID`; `apikey` → an IAM token as "
            "`api_key`, a function",
            "api_key=token",
        ),
        _li("jinaai-rerank", "JinaRerank", 2, "jina:jina-reranker-v3.5", "its default is v1"),
        _li(
            "mixedbreadai-rerank",
            "MixedbreadAIRerank",
            10,
            "mixedbread:mxbai-rerank-large-v2",
            "its default is v1; `max_retries` → `model_options`; `httpx_async_client` → `http_client` there",
        ),
        _li(
            "nvidia-rerank",
            "NVIDIARerank",
            5,
            "nvidia:nvidia/llama-nemotron-rerank-1b-v2",
            "logits there, scores in [0, 1] here",
        ),
        _li(
            "openvino-rerank",
            "OpenVINORerank",
            3,
            "onnx:BAAI/bge-reranker-large",
            "`model_id_or_path` → `model`; needs the extra `openvino`",
            'model_options={"runtime": "openvino"}',
        ),
        _li("pinecone-native-rerank", "PineconeNativeRerank", 2, "pinecone:bge-reranker-v2-m3"),
        Row(
            "llama-index-postprocessor-rankgpt-rerank",
            "RankGPTRerank",
            5,
            'RerankPostprocessor(reranker=LLMScorer(llm, mode="order", strategy="sliding"))',
            "the same windows; without `mode=` grades, so that thresholds apply",
        ),
        Row(
            "llama-index-postprocessor-rankllm-rerank",
            "RankLLMRerank",
            "",
            "RerankPostprocessor(reranker=LLMScorer(llm))",
            "or `reranker=PostprocessorScorer(theirs)` for its own checkpoints",
        ),
        _li(
            "sbert-rerank",
            "SentenceTransformerRerank",
            2,
            "cross-encoder:BAAI/bge-reranker-base",
            "as above; `cross_encoder_kwargs` → `model_options`; `cache_folder` → the variable `HF_HOME`",
        ),
        _li(
            "siliconflow-rerank",
            "SiliconFlowRerank",
            4,
            "siliconflow:BAAI/bge-reranker-v2-m3",
            "`max_chunks_per_doc`, `overlap_tokens` → `body` in `model_options`",
        ),
        _li(
            "tei-rerank",
            "TextEmbeddingInference",
            5,
            "tei:http://127.0.0.1:8080",
            "reads no metadata by default, ours does: `metadata_mode=MetadataMode.NONE`; `auth_token` → "
            "`api_key`, without `Bearer`; `timeout` (60) → `model_options`",
        ),
        _li(
            "voyageai-rerank",
            "VoyageAIRerank",
            None,
            "voyage:rerank-2.5",
            "`top_k` → `top_n`; `truncation` → `model_options`",
        ),
        _li("xinference-rerank", "XinferenceRerank", 5, "xinference:http://localhost:9997#bge-reranker-base"),
    ],
}
NOT_RERANKERS = {
    "`LLMLinguaCompressor`, `LongLLMLinguaPostprocessor`": "shorten the prompt's text, and order nothing",
    "`LLMChainExtractor`": "rewrites documents; a ranked document's `passage` says which part its score is about",
    "`EmbeddingRecencyPostprocessor`, `FixedRecencyPostprocessor`": "order by date; put them after ours",
    "`ColPaliRerank`": "reads images; ours read text",
    "`AIMonRerank`": "keeps the first nodes in their order, with the service's scores",
}
"""Classes of other packages that are no rerankers of text, and why."""


def render() -> str:
    """Return the page."""
    lines = [
        "# Coming from another reranker",
        "",
        "Find what you have, and write what stands beside it.",
        "",
        "Ours keep 5 documents where nothing is said; `top_n` is written out below where the class kept another "
        "number, and `top_n=None` where it returned all. Keys come from the same environment variables. Scores "
        "are "
        "always in [0, 1]. Any other class that reorders stays useful as it is: `CompressorScorer(compressor)` "
        "and "
        "`PostprocessorScorer(postprocessor)` make scorers of it, for both frameworks.",
        "",
        "`chat_model`, `llm`, `retriever`, `cross_encoder` and `theirs` are objects of yours; `token` is a "
        "function "
        "that returns a key or a token, see [Services](services.md).",
    ]
    for framework, rows in ROWS.items():
        lines += ["", f"## {framework}", "", "| from | write | what differs |", "|---|---|---|"]
        package = ""
        for row in rows:
            where = f", `{row.package}`" if row.package != package else ""
            package = row.package
            lines.append(f"| `{row.name}`{where} | `{row.code}` | {row.differs} |")
    lines += ["", "## What is no reranker", "", "| class | why |", "|---|---|"]
    lines += [f"| {names} | {why} |" for names, why in NOT_RERANKERS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
