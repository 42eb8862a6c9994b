// Package jobs keeps detached jobs: what a job is (Plan), what became of it
// (Record, in a journal on disk), what follows from both (State), and how it is
// driven to its end (Drive).
//
// A plan never changes. Everything that happens is a record, durable before
// anybody is shown it, and the state is a fold of the records in any order: two
// drivers at work at once only waste time, and copies of a journal on several
// peers need only have the same records to agree.
//
// The tasks of all steps are numbered through: the index of a task in the job is
// Step.First and its place among the items of the step.
package jobs
