// Package worker is the part of a peer that runs tasks for the grid.
//
// A [Worker] takes tasks with [Worker.Do] or [Worker.Submit] and is the arbiter
// of its slots: it accepts or refuses, at once and with a reason. Each slot has
// at most one sandbox process, which it keeps while tasks of the same job,
// module and limits come, so that a module is compiled once. Several short
// tasks are in flight in one process; long ones are not, so that an idle slot
// can take them.
//
// Modules and inputs must be in the worker's content [Store] before a task that
// needs them; the error tasks.MissingContent says what to put there. Outputs too
// large to ride in the result stay in the store until [Worker.Release], or for
// an hour.
//
// Nothing a guest does is noticed outside its process: one that crashes, hangs
// or is killed ends as a result with a reason, and the slot starts another. All
// state on disk is a cache: New empties what an earlier run left half done, and
// a crash at any instant loses only tasks that were running, which run again
// elsewhere.
package worker
