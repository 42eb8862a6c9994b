package cli

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// exactArgs accepts n arguments.
func exactArgs(n int) cobra.PositionalArgs { return argsBetween(n, n) }

// minimumArgs accepts n arguments and more.
func minimumArgs(n int) cobra.PositionalArgs { return argsBetween(n, math.MaxInt) }

// maximumArgs accepts up to n arguments.
func maximumArgs(n int) cobra.PositionalArgs { return argsBetween(0, n) }

func argsBetween(low, high int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < low:
			return usageError(c, fmt.Errorf("an argument is missing: %s", c.UseLine()))
		case len(args) > high:
			return usageError(c, fmt.Errorf("%q is one argument too many: %s", args[high], c.UseLine()))
		}
		return nil
	}
}

// flagError names the flag and the value, without the words of Go's parsers.
func flagError(c *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) {
		want := wanted(invalid.GetFlag().Value.Type())
		switch invalid.GetFlag().Value.(type) {
		case *keepCount, *share: // they say themselves what they want
			want = invalid.Unwrap()
		}
		err = fmt.Errorf("--%s cannot be %q: %w", invalid.GetFlag().Name, invalid.GetValue(), want)
	}
	return usageError(c, err)
}

// wanted says in words what a flag of a type takes.
func wanted(kind string) error {
	switch kind {
	case "int", "int64":
		kind = "a whole number"
	case "uint", "uint32", "uint64":
		kind = "a whole number that is not negative"
	case "duration":
		kind = "a time like 30s or 2h"
	case "bool":
		kind = "true or false"
	default:
		kind = "a value of type " + kind
	}
	return errors.New("want " + kind)
}

func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Explain a command",
		Example: "  gotong help backup\n  gotong help config show",
		RunE: func(c *cobra.Command, args []string) error {
			found, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError(c, fmt.Errorf("there is no command %q to explain", args[len(args)-1]))
			}
			found.InitDefaultHelpFlag()
			return found.Help()
		},
	}
}
