//! Groups by scripts of events.
