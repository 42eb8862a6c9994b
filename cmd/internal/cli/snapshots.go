package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) snapshotsCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "snapshots",
		Short:   "List the snapshots of this machine's vault, oldest first",
		Example: "  gotong snapshots --json",
		Args:    exactArgs(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
				list, err := peer.Snapshots(ctx, &controlv1.SnapshotsRequest{})
				if err != nil {
					return err
				}
				return a.printSnapshots(list.Snapshots)
			})
		},
	}
}

func (a *app) printSnapshots(snapshots []*controlv1.Snapshot) error {
	type entry struct {
		ID    string    `json:"id"`
		Time  time.Time `json:"time"`
		Host  string    `json:"host"`
		Paths []string  `json:"paths"`
		Files uint64    `json:"files"`
		Bytes uint64    `json:"bytes"`
	}
	if a.json {
		out := make([]entry, 0, len(snapshots))
		for _, s := range snapshots {
			out = append(out, entry{s.Id, time.Unix(0, s.TimeUnixNano).UTC(), s.Host, s.Paths, s.Files, s.Bytes})
		}
		return a.printJSON(struct {
			Snapshots []entry `json:"snapshots"`
		}{out})
	}
	if len(snapshots) == 0 {
		fmt.Fprintln(a.stderr, "No snapshot yet. Make one: gotong backup PATH…")
		return nil
	}
	return a.table("SNAPSHOT\tTIME\tHOST\tFILES\tSIZE\tPATHS", func(w io.Writer) {
		for _, s := range snapshots {
			fmt.Fprintf(w, "%.12s\t%s\t%s\t%d\t%s\t%s\n", s.Id, time.Unix(0, s.TimeUnixNano).Format(time.DateTime), printable(s.Host),
				s.Files, bytesText(s.Bytes), printable(strings.Join(s.Paths, " ")))
		}
	})
}
