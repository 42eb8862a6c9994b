// Package tasksv1 is how peers run tasks for each other.
package tasksv1
