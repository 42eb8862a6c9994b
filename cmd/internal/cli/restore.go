package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) restoreCommand() *cobra.Command {
	var request controlv1.RestoreRequest
	var target string
	var verbose, yes bool
	c := &cobra.Command{
		Use:   "restore SNAPSHOT[:PATH] --target DIR | --in-place",
		Short: "Bring files of a snapshot back",
		Long: `Restore writes the files of a snapshot, or those below PATH in it, into DIR, or
with --in-place to where they were. SNAPSHOT is an id, its first digits, latest,
or latest@SET for the newest of a backup set.

What is there already and the same is left alone; of files that differ only the
pieces that differ are fetched. A file whose data cannot be had is left out and
named; it never appears half written under its own name. Exit code 65 says that
data of it is lost; when friends who may have it are away the restore stops with 4,
and the same command goes on later. Nothing is written outside DIR.

Patterns are lines as in .gitignore, relative to PATH.`,
		Example: "  gotong restore latest --target /tmp/back\n  gotong restore 3f2a9c:/home/me/letters --target letters --include '*.odt'\n" +
			"  gotong restore latest@photos --in-place --delete --dry-run",
		Args: exactArgs(1),
	}
	f := c.Flags()
	f.StringVar(&target, "target", "", "directory to write into; made when missing")
	f.BoolVar(&request.InPlace, "in-place", false, "write to where it was backed up")
	f.StringArrayVar(&request.Include, "include", nil, "restore only what matches; may be repeated")
	f.StringArrayVar(&request.Exclude, "exclude", nil, "neither restore nor delete what matches; may be repeated")
	f.BoolVar(&request.Delete, "delete", false, "remove from restored directories what the snapshot does not have")
	f.BoolVar(&request.Verify, "verify", false, "read all files back and compare them with the snapshot")
	f.BoolVar(&request.DryRun, "dry-run", false, "say what would be done with each entry, and do nothing")
	f.StringVar(&request.Overwrite, "overwrite", "any", "which files that differ may be replaced: any, older (than in the snapshot) or none")
	f.StringVar(&request.Compare, "compare", "content", "when a file counts as the same: content, times (and size, faster) or nothing")
	f.BoolVarP(&verbose, "verbose", "v", false, "name each entry that is changed")
	f.BoolVar(&yes, "yes", false, "do not ask before --delete with --in-place")
	c.RunE = func(c *cobra.Command, args []string) error {
		if (target == "") != request.InPlace {
			return usageError(c, errors.New("where to? give --target DIR, or --in-place, not both"))
		}
		if target != "" {
			full, err := absolute(target)
			if err != nil {
				return usageError(c, err)
			}
			request.Target = []byte(full)
		}
		if request.InPlace && request.Delete && !request.DryRun && !yes {
			if err := a.confirm("Remove what was made since this snapshot from the restored directories? (--dry-run shows it)"); err != nil {
				return usageError(c, err)
			}
		}
		snapshot, path, _ := strings.Cut(args[0], ":")
		request.Snapshot, request.Path = snapshot, []byte(path)
		request.Items = verbose || request.DryRun
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Restore(ctx, &request)
			if err != nil {
				return err
			}
			return a.followRestore(stream.Recv, len(request.Include) > 0)
		})
	}
	return c
}

// followRestore shows a restore; one of chosen entries that finds none has failed.
func (a *app) followRestore(next func() (*controlv1.RestoreEvent, error), chosen bool) error {
	bar := a.startProgress("restoring")
	defer bar.stop()
	for {
		event, err := next()
		if err != nil {
			return err
		}
		switch e := event.Event.(type) {
		case *controlv1.RestoreEvent_Progress:
			err = a.showRestore(bar, e.Progress)
		case *controlv1.RestoreEvent_Skipped:
			err = a.printSkipped(bar, "skipped", e.Skipped)
		case *controlv1.RestoreEvent_Item:
			err = a.printRestoreItem(bar, e.Item)
		case *controlv1.RestoreEvent_Summary:
			bar.stop()
			err := a.printRestoreSummary(e.Summary)
			if err == nil && chosen && len(e.Summary.Actions) == 0 {
				err = &failure{code: exitFailed, what: "nothing in the snapshot matches --include", meaning: "nothing was restored",
					next: "gotong find PATTERN; patterns are relative to the PATH that is restored"}
			}
			return err
		}
		if err != nil {
			return err
		}
	}
}

// showRestore shows how far a restore is.
func (a *app) showRestore(bar *progressBar, p *controlv1.RestoreProgress) error {
	if !a.json {
		detail := ""
		if p.DuplicateBytes > 0 {
			detail = bytesText(p.DuplicateBytes) + " there already"
		}
		bar.set(p.Bytes, p.TotalBytes, detail, p.Holders)
		return nil
	}
	return a.printJSON(struct {
		Type       string       `json:"type"`
		Files      uint64       `json:"files"`
		Bytes      uint64       `json:"bytes"`
		TotalFiles uint64       `json:"total_files,omitempty"`
		TotalBytes uint64       `json:"total_bytes,omitempty"`
		Duplicate  uint64       `json:"duplicate_bytes"`
		Holders    []holderJSON `json:"holders,omitempty"`
	}{"progress", p.Files, p.Bytes, p.TotalFiles, p.TotalBytes, p.DuplicateBytes, holdersJSON(p.Holders)})
}

// printRestoreItem names an entry and what was done with it, unless that is
// nothing.
func (a *app) printRestoreItem(bar *progressBar, item *controlv1.RestoreItem) error {
	if item.Action == "unchanged" {
		return nil
	}
	if a.json {
		return a.printJSON(struct {
			Type       string `json:"type"`
			Action     string `json:"action"`
			Path       string `json:"path"`
			PathBase64 []byte `json:"path_base64,omitempty"`
		}{"item", item.Action, string(item.Path), notText(item.Path)})
	}
	bar.log(a.stdout, fmt.Sprintf("%-9s %s", item.Action, printable(string(item.Path))))
	return nil
}

func (a *app) printRestoreSummary(s *controlv1.RestoreSummary) error {
	if err := a.showRestoreSummary(s); err != nil || s.Skipped == 0 {
		return err
	}
	meaning := "everything else is in " + s.Target
	if s.Files == 0 {
		meaning = "no file was restored"
	}
	if s.DryRun {
		meaning = "nothing was changed"
	}
	if s.Lost > 0 {
		return &failure{code: exitCorrupt, what: countText(s.Skipped, "item was", "items were") + " not restored, of " + strconv.FormatUint(s.Lost, 10) + " data is lost", meaning: meaning,
			next: "gotong backup of the same paths stores anew what is still on this disk; then the same command again"}
	}
	return &failure{code: exitSkipped, what: countText(s.Skipped, "item was", "items were") + " not restored", meaning: meaning,
		next: "the reasons are above; the same command again does only what is missing"}
}

func (a *app) showRestoreSummary(s *controlv1.RestoreSummary) error {
	if a.json {
		return a.printJSON(struct {
			Type          string            `json:"type"`
			Snapshot      string            `json:"snapshot"`
			Target        string            `json:"target"`
			Files         uint64            `json:"files"`
			Bytes         uint64            `json:"bytes"`
			FetchedBytes  uint64            `json:"fetched_bytes"`
			Actions       map[string]uint64 `json:"actions"`
			Seconds       float64           `json:"seconds"`
			Skipped       uint64            `json:"skipped"`
			Lost          uint64            `json:"lost"`
			Unowned       uint64            `json:"unowned"`
			Verified      uint64            `json:"verified"`
			VerifiedBytes uint64            `json:"verified_bytes"`
			DryRun        bool              `json:"dry_run,omitempty"`
		}{"summary", s.Snapshot, s.Target, s.Files, s.Bytes, s.FetchedBytes, s.Actions, s.Seconds, s.Skipped, s.Lost, s.Unowned, s.Verified, s.VerifiedBytes, s.DryRun})
	}
	took := time.Duration(s.Seconds * float64(time.Second))
	files := countText(s.Files, "file", "files") + ", " + bytesText(s.Bytes)
	if s.DryRun {
		fmt.Fprintf(a.stdout, "Would restore %s into %s: %s. Nothing was changed.\n", files, printable(s.Target), actionsText(s.Actions))
		return nil
	}
	fmt.Fprintf(a.stdout, "Restored %s into %s in %s (%s)\n", files, printable(s.Target), took.Round(time.Millisecond), rateText(s.Bytes, took))
	if s.Actions["new"] < s.Files {
		fmt.Fprintf(a.stdout, "Fetched %s; entries: %s\n", bytesText(s.FetchedBytes), actionsText(s.Actions))
	}
	if s.Verified > 0 {
		fmt.Fprintf(a.stdout, "Verified: %s, %s read back and right\n", countText(s.Verified, "file", "files"), bytesText(s.VerifiedBytes))
	}
	if s.Unowned > 0 {
		fmt.Fprintf(a.stdout, "%s to the user who runs the peer: only root can give files to others\n", countText(s.Unowned, "entry belongs", "entries belong"))
	}
	return nil
}

// actionsText counts what was done with entries.
func actionsText(actions map[string]uint64) string {
	var parts []string
	for _, action := range []string{"new", "replaced", "metadata", "kept", "deleted", "unchanged"} {
		if n := actions[action]; n > 0 {
			parts = append(parts, humanize.Comma(int64(n))+" "+action)
		}
	}
	if len(parts) == 0 {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}
