// Package jobfile reads job files: YAML in which a user says what steps a job
// has, on what they work and where they may run. Parse checks the text, Build
// finds the files of which it speaks and makes a plan of it.
//
// docs/jobs.md describes the language.
package jobfile
