//! Refusals that only resources with MCP rules have.

use crate::gate::refusal::{Refusal, later, no};
use crate::refusal::Answer;

/// Why a message does not go to an MCP server, or its answer not to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum McpRefusal {
    /// The body is not one JSON-RPC message that can be read in one way only.
    Malformed,
    /// Several messages in one body.
    Batch,
    /// `Mcp-Method` or `Mcp-Name` say something else than the body.
    HeaderMismatch,
    /// Not plain JSON: another type, another charset, or encoded.
    MediaType,
    /// Longer than a message may be.
    TooLarge,
    /// Longer than a message may be whose head does not say how long it is.
    LengthRequired,
    /// The body did not come in time.
    Late,
    /// No room to hold another message while it is read.
    Busy,
    /// The server's list of tools cannot be read, so it cannot be cut down to what the mandate allows.
    AnswerInvalid,
}

impl McpRefusal {
    /// What the caller is told.
    #[must_use]
    pub const fn answer(self) -> Answer {
        match self {
            Self::Malformed => no(
                400,
                "mcp_message_invalid",
                "the body is not one JSON-RPC message",
                "send one JSON object in UTF-8, with each name once and no names beside those of JSON-RPC",
            ),
            Self::Batch => no(
                400,
                "mcp_batch",
                "batches are refused as a whole",
                "send each message in a request of its own",
            ),
            Self::HeaderMismatch => no(
                400,
                "mcp_header_mismatch",
                "Mcp-Method or Mcp-Name say something else than the body",
                "send the names that the body has",
            ),
            Self::MediaType => no(
                415,
                "mcp_media_type",
                "the body is not plain JSON",
                "send application/json in UTF-8 without Content-Encoding",
            ),
            Self::TooLarge => {
                no(413, "mcp_message_too_large", "the message is too long", "send a shorter message")
            }
            Self::LengthRequired => no(
                411,
                "mcp_length_required",
                "a message this long needs a Content-Length",
                "send Content-Length",
            ),
            Self::Late => later(408, "mcp_message_late", "the message did not come in time", "try again", 1),
            Self::Busy => later(503, "capacity", "no room to read another message", "try again", 1),
            Self::AnswerInvalid => no(
                502,
                "mcp_answer_invalid",
                "the server's answer cannot be read, so it is not passed on",
                "tell the operator; the decision id names this case",
            ),
        }
    }

    /// A short stable word for ledger and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "mcp_message_invalid",
            Self::Batch => "mcp_batch",
            Self::HeaderMismatch => "mcp_header_mismatch",
            Self::MediaType => "mcp_media_type",
            Self::TooLarge => "mcp_message_too_large",
            Self::LengthRequired => "mcp_length_required",
            Self::Late => "mcp_message_late",
            Self::Busy => "mcp_busy",
            Self::AnswerInvalid => "mcp_answer_invalid",
        }
    }
}

impl From<McpRefusal> for Refusal {
    fn from(refusal: McpRefusal) -> Self {
        Self::Mcp(refusal)
    }
}
