package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) backupCommand() *cobra.Command {
	var redundancy string
	c := &cobra.Command{
		Use:   "backup PATH…",
		Short: "Back up files and directories to friends' machines",
		Long: `Backup encrypts PATH… on this machine, codes it into shards and gives each shard
to another peer. Only what is new is sent. The last line says how many friends'
sites may vanish without loss.`,
		Example: "  gotong backup ~/photos ~/letters\n  gotong backup --redundancy 4+2 --json /srv",
		Args:    minimumArgs(1),
	}
	c.Flags().StringVar(&redundancy, "redundancy", "", "auto, or K+M: any K of K+M shards give the data back (default as configured)")
	c.RunE = func(c *cobra.Command, args []string) error {
		request := &controlv1.BackupRequest{Redundancy: redundancy}
		for _, path := range args {
			full, err := absolute(path)
			if err != nil {
				return usageError(c, err)
			}
			request.Paths = append(request.Paths, []byte(full))
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Backup(ctx, request)
			if err != nil {
				return err
			}
			return a.followBackup(stream.Recv)
		})
	}
	return c
}

// followBackup prints the events of a backup until its summary.
func (a *app) followBackup(next func() (*controlv1.BackupEvent, error)) error {
	bar := a.startProgress("backing up")
	defer bar.stop()
	for {
		event, err := next()
		if err != nil {
			return err
		}
		switch e := event.Event.(type) {
		case *controlv1.BackupEvent_Progress:
			bar.set(e.Progress.Bytes, e.Progress.TotalBytes)
		case *controlv1.BackupEvent_Skipped:
			if err := a.printSkipped(e.Skipped); err != nil {
				return err
			}
		case *controlv1.BackupEvent_Summary:
			bar.stop()
			return a.printBackupSummary(e.Summary)
		}
	}
}

// printSkipped reports an item that was left out, as it happens.
func (a *app) printSkipped(s *controlv1.SkippedItem) error {
	if a.json {
		return a.printJSON(struct {
			Type string `json:"type"`
			Path string `json:"path"`
			Why  string `json:"why"`
		}{"skipped", s.Path, s.Why})
	}
	fmt.Fprintf(a.stderr, "skipped %s: %s\n", printable(s.Path), printable(s.Why))
	return nil
}

func (a *app) printBackupSummary(s *controlv1.BackupSummary) error {
	if a.json {
		if err := a.printJSON(struct {
			Type          string  `json:"type"`
			Snapshot      string  `json:"snapshot"`
			Files         uint64  `json:"files"`
			Dirs          uint64  `json:"dirs"`
			Bytes         uint64  `json:"bytes"`
			NewBytes      uint64  `json:"new_bytes"`
			StoredBytes   uint64  `json:"stored_bytes"`
			Segments      uint64  `json:"segments"`
			Seconds       float64 `json:"seconds"`
			Committed     bool    `json:"committed"`
			Complete      bool    `json:"complete"`
			SurvivesSites int32   `json:"survives_sites"`
			Skipped       uint64  `json:"skipped"`
			Redundancy    string  `json:"redundancy"`
			Note          string  `json:"note,omitempty"`
		}{"summary", s.Snapshot, s.Files, s.Dirs, s.Bytes, s.NewBytes, s.StoredBytes, s.Segments, s.Seconds,
			s.Committed, s.Complete, s.SurvivesSites, s.Skipped, s.Redundancy, s.Note}); err != nil {
			return err
		}
	} else {
		took := time.Duration(s.Seconds * float64(time.Second))
		fmt.Fprintf(a.stdout, "Snapshot %s: %s, %s in %s (%s)\n", s.Snapshot, countText(s.Files, "file", "files"), bytesText(s.Bytes),
			took.Round(time.Millisecond), rateText(s.Bytes, took))
		fmt.Fprintf(a.stdout, "New data %s, stored with redundancy %s as %s on %s\n", bytesText(s.NewBytes), s.Redundancy,
			bytesText(s.StoredBytes), countText(uint64(s.Holders), "friend's machine", "friends' machines"))
		fmt.Fprintln(a.stdout, survivalText(s))
	}
	if !s.Committed {
		return &failure{code: exitTooFew, what: "too few friends took the data for the redundancy that was asked for",
			meaning: "the snapshot can be restored now, but not after the loss of another friend or two", next: "gotong peers; then gotong backup again when more friends are here"}
	}
	if s.Skipped > 0 {
		return &failure{code: exitSkipped, what: countText(s.Skipped, "item was", "items were") + " skipped",
			meaning: "everything else is in the snapshot", next: "make them readable and run the backup again"}
	}
	return nil
}

func survivalText(s *controlv1.BackupSummary) string {
	text := "Safe: survives the loss of any " + countText(uint64(max(s.SurvivesSites, 0)), "site.", "sites.")
	if s.SurvivesSites <= 0 {
		text = "Weak: it survives the loss of no friend's site."
	}
	if !s.Complete {
		text += " Some holders did not answer in time; redundancy is not full yet."
	}
	if s.Note != "" {
		text += "\n" + printable(s.Note)
	}
	return text
}
