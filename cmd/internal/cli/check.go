package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) checkCommand() *cobra.Command {
	var read share
	c := &cobra.Command{
		Use:   "check",
		Short: "Look whether everything that the snapshots need is there",
		Long: `Check goes from the newest head by the catalogue to every listing of every
snapshot, and asks all holders what they have. It changes nothing with them, and
notes here what is lost: the next backup stores that anew. --read-data also
fetches segments and opens what is in them: all, or the share that is given, chosen
at random each time.

A segment is healthy with all its shards, degraded with enough to read it (peers
repair that by themselves) and lost with fewer. Exit code 65 says that something
is lost or damaged, 4 that what is missing may only be with friends who are away.`,
		Example: "  gotong check\n  gotong check --read-data=10% --json",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 1 && c.Flags().Changed("read-data") {
				return usageError(c, fmt.Errorf("the share belongs to the flag: --read-data=%s", args[0]))
			}
			return exactArgs(0)(c, args)
		},
	}
	c.Flags().Var(&read, "read-data", "read this share of the data, such as 10%; all without a share")
	c.Flags().Lookup("read-data").NoOptDefVal = "100%"
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Check(ctx, &controlv1.CheckRequest{ReadData: float64(read)})
			if err != nil {
				return err
			}
			bar := a.startSteps()
			defer bar.stop()
			problems := uint64(0)
			return each(stream, func(e *controlv1.CheckEvent) error {
				switch e := e.Event.(type) {
				case *controlv1.CheckEvent_Progress:
					return a.showWork(bar, e.Progress)
				case *controlv1.CheckEvent_Problem:
					bar.stop()
					if problems++; problems > shownProblems && !a.json {
						return nil
					}
					return a.printCheckProblem(e.Problem)
				case *controlv1.CheckEvent_Summary:
					bar.stop()
					if more := int64(e.Summary.Problems) - shownProblems; more > 0 && !a.json {
						fmt.Fprintf(a.stdout, "! and %s: --json shows them\n", countText(uint64(more), "more problem", "more problems"))
					}
					return a.printChecked(e.Summary)
				}
				return nil
			})
		})
	}
	return c
}

// shownProblems bounds what of a long list people are shown.
const shownProblems = 20

func (a *app) printCheckProblem(text string) error {
	if a.json {
		return a.printJSON(struct {
			Type string `json:"type"`
			What string `json:"what"`
		}{"problem", text})
	}
	_, err := fmt.Fprintln(a.stdout, "! "+printable(text))
	return err
}

// printChecked prints what a check found; the error is what is wrong.
func (a *app) printChecked(s *controlv1.CheckSummary) error {
	if err := a.showChecked(s); err != nil {
		return err
	}
	if s.Lost == 0 && s.Problems == 0 {
		return nil
	}
	f := &failure{code: exitCorrupt, what: countText(s.Problems, "problem", "problems") + " found",
		meaning: "snapshots that need what is named above cannot be restored whole",
		next:    "gotong backup of the same paths stores anew what is still on this disk, gotong prune drops what was lost; then gotong check again"}
	if s.Lost > 0 {
		f.what += ", " + countText(s.Lost, "segment has", "segments have") + " too few shards"
		if s.Silent > 0 {
			f.code, f.meaning = exitTooFew, "what friends who are away hold may be all that is missing"
			f.next = "gotong peers; gotong check again when they are back"
		}
	}
	return f
}

func (a *app) showChecked(s *controlv1.CheckSummary) error {
	if a.json {
		return a.printJSON(struct {
			Type          string  `json:"type"`
			Segments      uint64  `json:"segments"`
			Healthy       uint64  `json:"healthy"`
			Degraded      uint64  `json:"degraded"`
			Lost          uint64  `json:"lost"`
			ShardsChecked uint64  `json:"shards_checked"`
			ShardsBad     uint64  `json:"shards_bad"`
			Seconds       float64 `json:"seconds"`
			Silent        uint64  `json:"shards_silent"`
			Snapshots     uint64  `json:"snapshots"`
			Blobs         uint64  `json:"blobs"`
			SegmentsRead  uint64  `json:"segments_read"`
			BlobsRead     uint64  `json:"blobs_read"`
			BytesRead     uint64  `json:"bytes_read"`
			Problems      uint64  `json:"problems"`
			NoReadKey     bool    `json:"no_read_key,omitempty"`
		}{"summary", s.Segments, s.Healthy, s.Degraded, s.Lost, s.ShardsChecked, s.ShardsBad, s.Seconds, s.Silent, s.Snapshots, s.Blobs,
			s.SegmentsRead, s.BlobsRead, s.BytesRead, s.Problems, s.NoReadKey})
	}
	took := time.Duration(s.Seconds * float64(time.Second))
	fmt.Fprintf(a.stdout, "Checked %s of %s in %s: %d healthy, %d degraded, %d lost\n", countText(s.Segments, "segment", "segments"),
		countText(s.Snapshots, "snapshot", "snapshots"), took.Round(time.Millisecond), s.Healthy, s.Degraded, s.Lost)
	fmt.Fprintf(a.stdout, "Holders have %d of %s\n", s.ShardsChecked-s.ShardsBad, countText(s.ShardsChecked, "shard", "shards"))
	if s.Silent > 0 {
		fmt.Fprintf(a.stdout, "Of %s that are missing the holders did not answer\n", countText(s.Silent, "shard", "shards"))
	}
	if s.SegmentsRead > 0 {
		fmt.Fprintf(a.stdout, "Read %s, %s: %s opened\n", countText(s.SegmentsRead, "segment", "segments"), bytesText(s.BytesRead), countText(s.BlobsRead, "blob", "blobs"))
	}
	if s.NoReadKey {
		fmt.Fprintln(a.stdout, "This device has no read key: what is in the snapshots was not looked into. With it: --phrase-file FILE")
	}
	if s.Degraded > 0 && s.Lost == 0 {
		fmt.Fprintln(a.stdout, "Degraded segments can be read; peers repair them by themselves: gotong status")
	}
	return nil
}
