// Package batch is the argument syntax of GNU parallel: it turns the words after
// a command, files and standard input into tasks.
//
// [SplitArgs] parts the words of a command line into the command and its
// [Source] values (":::", ":::+", "::::", "::::+"). [Plan.Tasks] yields the
// values of each task in order, one at a time, so that a million of them need
// no memory. [ParseTemplate] and [Template.Expand] put them into the arguments:
// {}, {.}, {/}, {//}, {/.}, {#} and {1}, {2.} and so on. [Splitter] cuts standard
// input into blocks for --pipe. [List] keeps the tasks of a job in one file or
// content, whatever their number.
//
// What differs from GNU parallel, because a task's arguments are a list and not
// a line for a shell: a value may contain newlines; {%} and Perl expressions are
// refused; a source that is empty gives no tasks.
//
// The package imports the standard library only, and does no I/O of its own
// beyond what it is given.
package batch

// Bounds of what the package reads.
const (
	// MaxValueBytes bounds one value: an item, or a line of a file.
	MaxValueBytes = 128 << 10
	// MaxValues bounds the values of one task.
	MaxValues = 1024
	// MaxArgs and MaxArgBytes bound the arguments of one task.
	MaxArgs     = 1024
	MaxArgBytes = 128 << 10
	// MaxSources bounds the sources of one command line.
	MaxSources = 64
	// MaxHeldBytes bounds the values of standard input that are kept because
	// they are needed more than once.
	MaxHeldBytes = 64 << 20
	// MaxBlockBytes bounds one block of a Splitter.
	MaxBlockBytes = 256 << 20
)
