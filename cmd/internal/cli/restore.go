package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) restoreCommand() *cobra.Command {
	var target string
	c := &cobra.Command{
		Use:   "restore SNAPSHOT[:PATH] --target DIR",
		Short: "Bring files of a snapshot back",
		Long: `Restore writes the files of a snapshot, or those below PATH in it, into DIR. It
never writes outside DIR. A file whose data cannot be had is left out and
named; it never appears half written under its own name.`,
		Example: "  gotong restore latest --target /tmp/back\n  gotong restore 3f2a9c:/home/me/letters --target letters",
		Args:    exactArgs(1),
	}
	c.Flags().StringVar(&target, "target", "", "directory to write into; made when missing")
	c.RunE = func(c *cobra.Command, args []string) error {
		if target == "" {
			return usageError(c, errors.New("where to? give --target DIR"))
		}
		full, err := absolute(target)
		if err != nil {
			return usageError(c, err)
		}
		snapshot, path, _ := strings.Cut(args[0], ":")
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Restore(ctx, &controlv1.RestoreRequest{Snapshot: snapshot, Path: []byte(path), Target: []byte(full)})
			if err != nil {
				return err
			}
			return a.followRestore(full, stream.Recv)
		})
	}
	return c
}

func (a *app) followRestore(target string, next func() (*controlv1.RestoreEvent, error)) error {
	bar := a.startProgress("restoring")
	defer bar.stop()
	for {
		event, err := next()
		if err != nil {
			return err
		}
		switch e := event.Event.(type) {
		case *controlv1.RestoreEvent_Progress:
			bar.set(e.Progress.Bytes, e.Progress.TotalBytes, "", e.Progress.Holders)
		case *controlv1.RestoreEvent_Skipped:
			if err := a.printSkipped(bar, "skipped", e.Skipped); err != nil {
				return err
			}
		case *controlv1.RestoreEvent_Summary:
			bar.stop()
			return a.printRestoreSummary(target, e.Summary)
		}
	}
}

func (a *app) printRestoreSummary(target string, s *controlv1.RestoreSummary) error {
	if a.json {
		if err := a.printJSON(struct {
			Type    string  `json:"type"`
			Files   uint64  `json:"files"`
			Bytes   uint64  `json:"bytes"`
			Seconds float64 `json:"seconds"`
			Skipped uint64  `json:"skipped"`
		}{"summary", s.Files, s.Bytes, s.Seconds, s.Skipped}); err != nil {
			return err
		}
	} else {
		took := time.Duration(s.Seconds * float64(time.Second))
		fmt.Fprintf(a.stdout, "Restored %s, %s into %s in %s (%s)\n", countText(s.Files, "file", "files"), bytesText(s.Bytes), target,
			took.Round(time.Millisecond), rateText(s.Bytes, took))
	}
	if s.Skipped > 0 {
		meaning := "everything else is in " + target
		if s.Files == 0 {
			meaning = "no file was restored"
		}
		return &failure{code: exitSkipped, what: countText(s.Skipped, "item was", "items were") + " not restored", meaning: meaning}
	}
	return nil
}
