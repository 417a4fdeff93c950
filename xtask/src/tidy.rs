//! Rules of the repository, as tests: tools remember them so that reviewers need not.

mod dependencies;
mod errors;
mod floors;
mod invariants;
mod leftovers;
mod links;
mod metadata;
