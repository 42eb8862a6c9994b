package cli

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

// defaultWaste is the share of stored data that may be of no use.
const defaultWaste = 0.10

func (a *app) pruneCommand() *cobra.Command {
	request := controlv1.PruneRequest{}
	waste := share(defaultWaste)
	c := &cobra.Command{
		Use:   "prune",
		Short: "Give back the space of what no snapshot needs",
		Long: `Prune deletes what no snapshot needs any more from friends' disks: segments of
which nothing is needed at once; of others the useful part is copied when more than
--max-waste of all stored data is of no use. It needs no lock: backups may run, and
a stop at any moment is safe.

Friends keep what is deleted in their trash for the retention floor at least,
whatever this machine says: nobody who takes it over can destroy backups.`,
		Example: "  gotong prune --dry-run\n  gotong prune --max-waste 5%",
		Args:    exactArgs(0),
	}
	c.Flags().Var(&waste, "max-waste", "share of stored data that may be of no use, such as 5%; 100% copies nothing")
	c.Flags().BoolVar(&request.DryRun, "dry-run", false, "say what would be done, and change nothing")
	c.RunE = func(c *cobra.Command, _ []string) error {
		request.MaxWaste = float64(waste)
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			return a.prune(ctx, peer, &request)
		})
	}
	return c
}

// share is a part of a whole: 5%, or 0.05.
type share float64

// Set implements pflag.Value.
func (s *share) Set(text string) error {
	number, percent := strings.CutSuffix(text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || math.IsNaN(v) || v < 0 || v > 1 {
		return errors.New("want a share such as 5%")
	}
	*s = share(v)
	return nil
}

func (s *share) String() string { return strconv.FormatFloat(float64(*s)*100, 'g', 4, 64) + "%" }

// Type implements pflag.Value.
func (s *share) Type() string { return "SHARE" }

// prune runs a prune and shows how far it is.
func (a *app) prune(ctx context.Context, peer controlv1.ControlClient, request *controlv1.PruneRequest) error {
	stream, err := peer.Prune(ctx, request)
	if err != nil {
		return err
	}
	bar := a.startSteps()
	defer bar.stop()
	return each(stream, func(e *controlv1.PruneEvent) error {
		if p := e.GetProgress(); p != nil {
			return a.showWork(bar, p)
		}
		bar.stop()
		return a.printPruned(e.GetSummary())
	})
}

func (a *app) printPruned(s *controlv1.PruneSummary) error {
	if a.json {
		return a.printJSON(struct {
			Type      string  `json:"type"`
			Snapshots uint64  `json:"snapshots"`
			Segments  uint64  `json:"segments"`
			Dropped   uint64  `json:"dropped"`
			Repacked  uint64  `json:"repacked"`
			Stored    uint64  `json:"stored"`
			Orphans   uint64  `json:"orphans"`
			Bytes     uint64  `json:"bytes"`
			Waste     uint64  `json:"waste_bytes"`
			WasteLeft uint64  `json:"waste_left_bytes"`
			Freed     uint64  `json:"freed_bytes"`
			Waiting   uint64  `json:"waiting"`
			Seconds   float64 `json:"seconds"`
			DryRun    bool    `json:"dry_run,omitempty"`
		}{"summary", s.Snapshots, s.Segments, s.Dropped, s.Repacked, s.Stored, s.Orphans, s.Bytes, s.WasteBytes, s.WasteLeftBytes,
			s.FreedBytes, s.Waiting, s.Seconds, s.DryRun})
	}
	verb, copied := "Dropped", "copied the useful part of"
	if s.DryRun {
		verb, copied = "Would drop", "copy the useful part of"
	}
	fmt.Fprintf(a.stdout, "%s %d of %s that nothing needs, %s %d; %s remain for %s\n", verb, s.Dropped+s.Orphans,
		countText(s.Segments+s.Orphans, "segment", "segments"), copied, s.Repacked, countText(s.Segments-s.Dropped-s.Repacked+s.Stored, "segment", "segments"),
		countText(s.Snapshots, "snapshot", "snapshots"))
	fmt.Fprintf(a.stdout, "%s of %s was of no use, %s stays so; the figures do not count redundancy\n", bytesText(s.WasteBytes), bytesText(s.Bytes), bytesText(s.WasteLeftBytes))
	if s.DryRun {
		fmt.Fprintf(a.stdout, "Would free %s. Nothing was changed.\n", bytesText(s.FreedBytes))
		return nil
	}
	if s.Dropped+s.Repacked+s.Orphans > 0 {
		fmt.Fprintf(a.stdout, "Freed %s: friends keep it in their trash for %s, then it is gone\n", bytesText(s.FreedBytes), floorText(time.Duration(s.FloorSeconds)*time.Second))
	}
	if s.Waiting > 0 {
		fmt.Fprintln(a.stdout, "Not all friends know of it yet; the peer tells them when they are back")
	}
	return nil
}

func floorText(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day {
		return strconv.Itoa(int(d/day)) + " days"
	}
	return d.String()
}
