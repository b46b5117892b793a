//! Keeps the pages true.
//!
//! What follows from the code is made from the code ([`configuration`], [`api`]) and compared with the page; what is told by hand
//! is held against the code where the two could part: commands are run ([`stage`]), links are followed, tables of errors and
//! settings are complete. `WRITE_DOCS=1 cargo test -p oncelog-docs` writes anew what is made.
//!
//! | module | owns |
//! |---|---|
//! | [`page`] | just enough of Markdown: blocks, links, headings, tables |
//! | [`configuration`] | the page of settings, by asking the services' own parsers |
//! | [`api`] | the page of the contract, by its protobuf files and their comments |
//! | [`stage`] | where a page's commands are run: an empty directory beside a running `oncelog dev` |

pub mod api;
pub mod configuration;
pub mod page;
pub mod stage;
