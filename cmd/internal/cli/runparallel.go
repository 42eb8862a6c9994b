package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// parallelFlags says what gotong run has in place of options of GNU parallel that
// it does not know.
var parallelFlags = map[string]string{
	"a": filesMark, "arg-file": filesMark,
	"n": "-N gives each task so many items", "max-args": "-N gives each task so many items",
	"results": "--output DIR keeps files; of run --detach, gotong job results --to DIR keeps what tasks print too",
	"bar":     progressShown, "eta": progressShown, "progress": progressShown,
	"u": outputWhole, "ungroup": outputWhole, "lb": outputWhole, "line-buffer": outputWhole, "group": outputWhole,
	"S": peersWork, "sshlogin": peersWork, "slf": peersWork, "sshloginfile": peersWork,
	"transferfile": "--stage sends the file that an item names", "basefile": "--input sends a file to all tasks",
	"return": "--output DIR keeps the files that tasks leave below /out",
	"header": "leave the line out: tail -n +2 FILE | gotong run …",
}

const (
	filesMark     = "the files of items stand after ::::, at the end"
	progressShown = "progress and the time that is left are shown by themselves, on a terminal"
	outputWhole   = "what a task prints comes whole when it has ended; --as-they-come does not keep the order"
	peersWork     = "the peers of the grid work: gotong run --dry-run says which"
)

// runFlagError is flagError, with the words of whoever comes from GNU parallel.
func runFlagError(c *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) {
		if instead, ok := parallelFlags[unknown.GetSpecifiedName()]; ok {
			return usageError(c, fmt.Errorf("%w; %s", err, instead))
		}
	}
	return flagError(c, err)
}
