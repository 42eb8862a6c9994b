package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) drillCommand() *cobra.Command {
	var files int
	c := &cobra.Command{
		Use:   "drill",
		Short: "Try out whether everything would come back",
		Long: `Drill does what a new device would do after a loss: with an empty index, in a
scratch directory, it asks friends for the newest state, restores files drawn at
random from the newest snapshot, and compares them with the hashes in it. The
vault of this device is not touched. With --phrase-file all keys come from the
phrase, which proves the recovery sheet. On a write-only device without it, the
drill proves that segments decode and are what they ought to be. The peer drills
by itself as drill.every says, and status shows the last one. Exit code 1 says that
the drill failed.`,
		Example: "  gotong drill\n  gotong drill --files 200 --phrase-file phrase.txt",
		Args:    exactArgs(0),
	}
	c.Flags().IntVar(&files, "files", 0, "how many files to restore (default 20)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if files < 0 || c.Flags().Changed("files") && files == 0 {
			return usageError(c, errors.New("--files has to be positive"))
		}
		return a.callPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			request := &controlv1.DrillRequest{Files: uint32(files)}
			if a.phraseFile != "" {
				own, err := a.provePhrase(ctx, peer)
				if err != nil {
					return err
				}
				if request.Secrets, err = own.secrets.Marshal(); err != nil {
					return err
				}
			}
			stream, err := peer.Drill(ctx, request)
			if err != nil {
				return err
			}
			result, err := stream.Recv()
			clear(request.Secrets)
			if err != nil {
				return err
			}
			return a.printDrill(result)
		})
	}
	return c
}

type drillJSON struct {
	Time        time.Time  `json:"time"`
	OK          bool       `json:"ok"`
	Passed      *time.Time `json:"last_passed"` // when the last one ended that passed; null: none did
	What        string     `json:"what"`
	Phrase      bool       `json:"phrase"`
	Snapshot    string     `json:"snapshot,omitempty"`
	Files       uint64     `json:"files"`
	Bytes       uint64     `json:"bytes"`
	Segments    uint64     `json:"segments"`
	SitesNeeded uint32     `json:"sites_needed"`
	Seconds     float64    `json:"seconds"`
	Head        uint64     `json:"head"`
	Problem     string     `json:"problem,omitempty"`
}

func newDrillJSON(r *controlv1.DrillResult) *drillJSON {
	if r == nil {
		return nil
	}
	return &drillJSON{time.Unix(r.TimeUnix, 0).UTC(), r.Ok, timeOrNull(r.PassedUnix), r.What, r.Phrase, r.Snapshot, r.Files, r.Bytes, r.Segments, r.SitesNeeded, r.Seconds, r.Head, r.Problem}
}

func (a *app) printDrill(r *controlv1.DrillResult) error {
	if a.json {
		if err := a.printJSON(newDrillJSON(r)); err != nil {
			return err
		}
	} else if r.Ok {
		fmt.Fprintln(a.stdout, drillSentence(r))
	}
	if r.Ok {
		return nil
	}
	return &failure{code: exitFailed, what: "the drill failed: " + r.Problem, meaning: "a restore on a new machine might not bring everything back now",
		next: "gotong peers, to see who is away; gotong check; then gotong drill again"}
}

// drillSentence says what a drill that passed has proved.
func drillSentence(r *controlv1.DrillResult) string {
	took := time.Duration(r.Seconds * float64(time.Second)).Round(time.Millisecond)
	with := "the keys of this device"
	if r.Phrase {
		with = "keys from the phrase alone"
	}
	what := fmt.Sprintf("%s of snapshot %.12s, %s, came back as they were", countText(r.Files, "file", "files"), r.Snapshot, bytesText(r.Bytes))
	if r.What == "segments" {
		what = fmt.Sprintf("segments drawn at random, %s, decode and are what they ought to be", bytesText(r.Bytes))
	}
	return fmt.Sprintf("The drill passed: %s, from an empty index and %s, in %s; %s fetched, %s needed.", what, with, took,
		countText(r.Segments, "segment", "segments"), countText(uint64(r.SitesNeeded), "site", "sites"))
}

// drillText is the last drill in a line of the status.
func drillText(r *controlv1.DrillResult) string {
	if r == nil {
		return "none yet"
	}
	text := "failed " + humanize.Time(time.Unix(r.TimeUnix, 0)) + ": " + r.Problem
	if r.Ok {
		text = fmt.Sprintf("passed %s: %s, %s", humanize.Time(time.Unix(r.TimeUnix, 0)), countText(r.Files, "file", "files"), bytesText(r.Bytes))
		if r.What == "segments" {
			text = fmt.Sprintf("passed %s: %s of segments", humanize.Time(time.Unix(r.TimeUnix, 0)), bytesText(r.Bytes))
		}
	} else if r.PassedUnix > 0 {
		text += "; the last that passed was " + humanize.Time(time.Unix(r.PassedUnix, 0))
	}
	return text
}
