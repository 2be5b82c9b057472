//! What a learner has: the checker, the book, the checkout and the dev container.

mod bodies;
mod book;
mod browser;
mod checkout;
mod checks;
mod desk;
mod exercises;
mod place;
mod variants;
mod workshop;
