package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) findCommand() *cobra.Command {
	var request controlv1.FindRequest
	c := &cobra.Command{
		Use:   "find PATTERN…",
		Short: "Find files in snapshots by their names",
		Long: `Find prints the entries of all snapshots, newest first, that a PATTERN matches.
Patterns are lines as in .gitignore: "*.jpg" in any directory, "/home/me/**/2024"
from the top. Exit code 1 says that nothing was found.`,
		Example: "  gotong find '*.odt'\n  gotong find --set photos -i 'img_12*.jpg'\n  gotong find --snapshot latest /home/me/letters/",
		Args:    minimumArgs(1),
	}
	c.Flags().StringArrayVar(&request.Snapshots, "snapshot", nil, "look only in this snapshot; may be repeated")
	c.Flags().StringVar(&request.Set, "set", "", "look only in snapshots of this backup set")
	c.Flags().StringArrayVar(&request.Tags, "tag", nil, "look only in snapshots with this tag; repeated: with all of them")
	c.Flags().BoolVarP(&request.IgnoreCase, "ignore-case", "i", false, "take letters in either case")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(request.Snapshots) > 0 && (request.Set != "" || len(request.Tags) > 0) {
			return usageError(c, errors.New("--snapshot says where to look already; leave out --set and --tag"))
		}
		request.Patterns = args
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Find(ctx, &request)
			if err != nil {
				return err
			}
			last := ""
			err = each(stream, func(m *controlv1.FindMatch) error {
				if !a.json && m.Snapshot != last {
					fmt.Fprintf(a.stdout, "Snapshot %s of %s:\n", short(m.Snapshot), time.Unix(0, m.TimeUnixNano).Format(time.DateTime))
				}
				last = m.Snapshot
				return a.printEntryOf(m.Entry, m.Snapshot)
			})
			if err == nil && last == "" {
				return &failure{code: exitFailed, what: "nothing matches", next: "gotong find --help explains patterns; gotong ls latest shows what there is"}
			}
			return err
		})
	}
	return c
}
