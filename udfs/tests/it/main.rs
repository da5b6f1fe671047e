//! The host through its public face: guests built from source in two languages, and components written by hand for
//! what no compiler would let through.

mod child;
mod guests;
mod hostile;
mod registry;
mod support;
