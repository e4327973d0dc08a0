//! elmo
