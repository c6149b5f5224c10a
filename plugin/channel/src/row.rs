//! Row encodings.
