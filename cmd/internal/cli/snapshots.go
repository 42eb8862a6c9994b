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

// historyTimeout bounds the list of snapshots.
const historyTimeout = 10 * time.Minute

func (a *app) snapshotsCommand() *cobra.Command {
	var request controlv1.SnapshotsRequest
	c := &cobra.Command{
		Use:   "snapshots",
		Short: "List the snapshots of this machine's vault, oldest first",
		Long: `Snapshots lists what was backed up from this machine. With --all it asks friends
for older states of the vault too, and marks what only these have: what was
forgotten within the retention floor, by you or by malware here.`,
		Example: "  gotong snapshots --set photos --tag keep\n  gotong snapshots --all --json",
		Args:    exactArgs(0),
	}
	c.Flags().StringArrayVar(&request.Tags, "tag", nil, "only those with this tag; repeated: with all of them")
	c.Flags().StringVar(&request.Set, "set", "", "only those of this backup set")
	c.Flags().BoolVar(&request.All, "all", false, "also those that were forgotten, or left out by somebody else, and that friends still keep: restore takes their ids too")
	c.RunE = func(c *cobra.Command, _ []string) error {
		// An index that was lost is made anew first, and all heads may have to be read.
		ctx, cancel := context.WithTimeout(c.Context(), historyTimeout)
		defer cancel()
		return a.withPeer(ctx, func(ctx context.Context, peer controlv1.ControlClient) error {
			list, err := peer.Snapshots(ctx, &request)
			if err != nil {
				return err
			}
			return a.printSnapshots(list.Snapshots, request.Set != "" || len(request.Tags) > 0)
		})
	}
	return c
}

// snapshotJSON is one snapshot as scripts read it.
type snapshotJSON struct {
	ID      string    `json:"id"`
	Time    time.Time `json:"time"`
	Host    string    `json:"host"`
	Set     string    `json:"set,omitempty"`
	Tags    []string  `json:"tags"`
	Paths   []string  `json:"paths"`
	Files   uint64    `json:"files"`
	Dirs    uint64    `json:"dirs"`
	Bytes   uint64    `json:"bytes"`
	Skipped uint64    `json:"skipped"`
	// Only with --all.
	Forgotten bool   `json:"forgotten,omitempty"`
	Head      uint64 `json:"head,omitempty"`
}

func newSnapshotJSON(s *controlv1.Snapshot) snapshotJSON {
	return snapshotJSON{s.Id, time.Unix(0, s.TimeUnixNano).UTC(), s.Host, s.Set, append([]string{}, s.Tags...), append([]string{}, s.Paths...),
		s.Files, s.Dirs, s.Bytes, s.Skipped, s.Forgotten, s.Head}
}

func (a *app) printSnapshots(snapshots []*controlv1.Snapshot, chosen bool) error {
	if a.json {
		out := make([]snapshotJSON, 0, len(snapshots))
		for _, s := range snapshots {
			out = append(out, newSnapshotJSON(s))
		}
		return a.printJSON(struct {
			Snapshots []snapshotJSON `json:"snapshots"`
		}{out})
	}
	if len(snapshots) == 0 {
		text := "No snapshot yet. Make one: gotong backup PATH…"
		if chosen {
			text = "No snapshot is of that set and has those tags. All there are: gotong snapshots"
		}
		fmt.Fprintln(a.stderr, text)
		return nil
	}
	return a.table("SNAPSHOT\tTIME\tHOST\tSET\tTAGS\tFILES\tSIZE\tPATHS", func(w io.Writer) {
		for _, s := range snapshots {
			if s.Forgotten {
				s.Tags = append(s.Tags, fmt.Sprintf("[forgotten; in head %d]", s.Head))
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", short(s.Id), time.Unix(0, s.TimeUnixNano).Format(time.DateTime), printable(s.Host),
				orDash(s.Set), orDash(strings.Join(s.Tags, ",")), s.Files, bytesText(s.Bytes), printable(pathsText(s.Paths)))
		}
	})
}

// shownPaths bounds the paths of one line.
const shownPaths = 3

func pathsText(paths []string) string {
	text := strings.Join(paths[:min(len(paths), shownPaths)], " ")
	if more := len(paths) - shownPaths; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// orDash keeps an empty cell of a table visible.
func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return printable(text)
}
