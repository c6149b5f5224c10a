//! The monitor: what it knows of a channel's commitments, and what it does when one is published.
