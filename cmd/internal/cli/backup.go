package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"gotong/grid/node"
	controlv1 "gotong/proto/control/v1"
)

// backupFlags are what a backup is told besides paths.
type backupFlags struct {
	request      controlv1.BackupRequest
	excludeFiles []string
	filesFrom    string
	filesFrom0   string
}

func (a *app) backupCommand() *cobra.Command {
	var flags backupFlags
	c := &cobra.Command{
		Use:   "backup PATH… | --set NAME | --files-from FILE | --stdin-name NAME",
		Short: "Back up files and directories to friends' machines",
		Long: `Backup encrypts PATH… on this machine, codes it into shards and gives each shard
to another peer. Only what is new is sent. The last line says how many friends'
sites may vanish without loss.

Patterns of --exclude and --exclude-file are lines as in .gitignore, relative to
each PATH; files named .gotongignore inside the tree count too. --set takes paths
and everything else from the configuration (see configs/gotong.yaml), where a set
can also have a schedule by which the peer runs it.

Files that cannot be read are named and left out (exit code 3). When too few
friends are here for full redundancy, but enough to restore, the snapshot is
partial (exit code 4): the peer completes it by itself when they are back.`,
		Example: "  gotong backup ~/photos ~/letters\n  gotong backup --exclude '*.o' --exclude-caches --tag work ~/src\n" +
			"  gotong backup --set photos\n  find /srv -newer stamp -type f -print0 | gotong backup --files-from0 -\n" +
			"  pg_dump shop | gotong backup --stdin-name shop.sql",
		Args: minimumArgs(0),
	}
	f, r := c.Flags(), &flags.request
	f.StringVar(&r.Redundancy, "redundancy", "", "auto, or K+M: any K of K+M shards give the data back (default as configured)")
	f.StringArrayVar(&r.Exclude, "exclude", nil, "leave out what matches this line of .gitignore; may be repeated")
	f.StringArrayVar(&flags.excludeFiles, "exclude-file", nil, "leave out what matches a line of this file; may be repeated")
	f.BoolVar(&r.ExcludeCaches, "exclude-caches", false, "leave out the contents of directories that have a CACHEDIR.TAG")
	f.StringArrayVar(&r.ExcludeIfPresent, "exclude-if-present", nil, "leave out the contents of directories that have an entry of this name; may be repeated")
	f.BoolVar(&r.OneFileSystem, "one-file-system", false, "do not enter other file systems")
	f.StringVar(&flags.filesFrom, "files-from", "", "back up what this file lists, one path a line; - is standard input")
	f.StringVar(&flags.filesFrom0, "files-from0", "", "the same, with zero bytes between paths")
	f.StringArrayVar(&r.Tags, "tag", nil, "mark the snapshot; may be repeated")
	f.StringVar(&r.Set, "set", "", "back up this set of the configuration")
	f.StringVar(&r.StdinName, "stdin-name", "", "back up standard input as one file of this name")
	f.BoolVar(&r.DryRun, "dry-run", false, "say what would be new, and store nothing")
	c.RunE = func(c *cobra.Command, args []string) error {
		source, err := flags.source(a, args)
		if err != nil {
			return usageError(c, err)
		}
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			stream, err := peer.Backup(ctx)
			if err != nil {
				return err
			}
			unread := make(chan error, 1)
			go func() {
				if err := flags.send(stream, source); err != nil {
					unread <- err
					cancel()
				}
			}()
			err = a.followBackup(stream.Recv)
			select {
			case reason := <-unread:
				return &failure{code: exitFailed, what: reason.Error(), meaning: "there is no new snapshot", cause: reason}
			default:
				return err
			}
		})
	}
	return c
}

// backupSource is what of a backup the command reads itself.
type backupSource struct {
	files iterPaths // nil: no list
	stdin io.Reader // nil: not backed up
}

// source completes the request and says what else is to be sent.
func (f *backupFlags) source(a *app, args []string) (backupSource, error) {
	r := &f.request
	var s backupSource
	var from []string
	for _, given := range []struct {
		name string
		set  bool
	}{
		{"PATH", len(args) > 0}, {"--set", r.Set != ""}, {"--files-from", f.filesFrom != ""},
		{"--files-from0", f.filesFrom0 != ""}, {"--stdin-name", r.StdinName != ""},
	} {
		if given.set {
			from = append(from, given.name)
		}
	}
	switch {
	case len(from) == 0:
		return s, errors.New("back up what? give PATH…, --set NAME, --files-from FILE or --stdin-name NAME")
	case len(from) > 1:
		return s, fmt.Errorf("%s and %s exclude each other", from[0], from[1])
	}
	if r.Set != "" && (len(r.Exclude)+len(f.excludeFiles) > 0 || r.ExcludeCaches || len(r.ExcludeIfPresent) > 0 || r.OneFileSystem) {
		return s, errors.New("what a set leaves out is in its configuration; beside --set only --tag, --redundancy and --dry-run have a meaning")
	}
	for _, path := range args {
		full, err := absolute(path)
		if err != nil {
			return s, err
		}
		r.Paths = append(r.Paths, []byte(full))
	}
	for _, name := range f.excludeFiles {
		full, err := absolute(name)
		if err != nil {
			return s, err
		}
		r.ExcludeFrom = append(r.ExcludeFrom, []byte(full))
	}
	if i := slices.IndexFunc(r.ExcludeIfPresent, func(name string) bool { return name == "" || strings.ContainsRune(name, os.PathSeparator) }); i >= 0 {
		return s, fmt.Errorf("--exclude-if-present %q is not the name of an entry", r.ExcludeIfPresent[i])
	}
	for _, tag := range r.Tags {
		if err := node.CheckTag(tag); err != nil {
			return s, err
		}
	}
	if strings.ContainsAny(r.StdinName, "/\x00") || r.StdinName == "." || r.StdinName == ".." {
		return s, fmt.Errorf("--stdin-name %q is not the name of a file", r.StdinName)
	}
	if r.StdinName != "" {
		s.stdin = a.stdin
	}
	var err error
	if r.Files = f.filesFrom != "" || f.filesFrom0 != ""; r.Files {
		s.files, err = a.openPathList(f.filesFrom, f.filesFrom0)
	}
	return s, err
}

const (
	inputPieceBytes = 256 << 10
	pathsAtOnce     = 1024
	pathBytesAtOnce = 1 << 20
)

// send hands over what only this command can read. An error is one of reading;
// when the peer ended the backup, its own answer says why.
func (f *backupFlags) send(stream controlv1.Control_BackupClient, source backupSource) error {
	gone := func(m *controlv1.BackupInput) bool { return stream.Send(m) != nil }
	if gone(&controlv1.BackupInput{Input: &controlv1.BackupInput_Start{Start: &f.request}}) {
		return nil
	}
	if source.files != nil {
		batch, size := &controlv1.BackupFiles{}, 0
		for path, err := range source.files {
			if err != nil {
				return err
			}
			batch.Paths = append(batch.Paths, []byte(path))
			if size += len(path); len(batch.Paths) == pathsAtOnce || size > pathBytesAtOnce {
				if gone(&controlv1.BackupInput{Input: &controlv1.BackupInput_Files{Files: batch}}) {
					return nil
				}
				batch, size = &controlv1.BackupFiles{}, 0
			}
		}
		if gone(&controlv1.BackupInput{Input: &controlv1.BackupInput_Files{Files: batch}}) {
			return nil
		}
	}
	if source.stdin != nil {
		buffer := make([]byte, inputPieceBytes)
		for {
			n, err := source.stdin.Read(buffer)
			if n > 0 && gone(&controlv1.BackupInput{Input: &controlv1.BackupInput_Data{Data: buffer[:n]}}) {
				return nil
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return fmt.Errorf("standard input: %w", err)
			}
		}
	}
	if gone(&controlv1.BackupInput{Input: &controlv1.BackupInput_End{End: &controlv1.BackupInputEnd{}}}) {
		return nil
	}
	_ = stream.CloseSend() // all is said
	return nil
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
			if err := a.showBackup(bar, e.Progress); err != nil {
				return err
			}
		case *controlv1.BackupEvent_Skipped:
			if err := a.printSkipped(bar, "skipped", e.Skipped); err != nil {
				return err
			}
		case *controlv1.BackupEvent_Warned:
			if err := a.printSkipped(bar, "warning", e.Warned); err != nil {
				return err
			}
		case *controlv1.BackupEvent_Summary:
			bar.stop()
			return a.printBackupSummary(e.Summary)
		}
	}
}

// showBackup shows how far a backup is.
func (a *app) showBackup(bar *progressBar, p *controlv1.BackupProgress) error {
	if !a.json {
		bar.set(p.Bytes, p.TotalBytes, fmt.Sprintf("new %s, sent %s", bytesText(p.NewBytes), bytesText(p.StoredBytes)), p.Holders)
		return nil
	}
	return a.printJSON(struct {
		Type       string       `json:"type"`
		Files      uint64       `json:"files"`
		Bytes      uint64       `json:"bytes"`
		TotalFiles uint64       `json:"total_files,omitempty"`
		TotalBytes uint64       `json:"total_bytes,omitempty"`
		NewBytes   uint64       `json:"new_bytes"`
		Duplicate  uint64       `json:"duplicate_bytes"`
		SentBytes  uint64       `json:"sent_bytes"`
		Holders    []holderJSON `json:"holders,omitempty"`
	}{"progress", p.Files, p.Bytes, p.TotalFiles, p.TotalBytes, p.NewBytes, p.DuplicateBytes,
		p.StoredBytes, holdersJSON(p.Holders)})
}

// printSkipped reports an item that was left out, or is not as it should be, as
// it happens.
func (a *app) printSkipped(bar *progressBar, kind string, s *controlv1.SkippedItem) error {
	if a.json {
		return a.printJSON(struct {
			Type string `json:"type"`
			Path string `json:"path"`
			Why  string `json:"why"`
		}{kind, s.Path, s.Why})
	}
	bar.log(a.stderr, kind+" "+printable(s.Path)+": "+printable(s.Why))
	return nil
}

func (a *app) printBackupSummary(s *controlv1.BackupSummary) error {
	if err := a.showBackupSummary(s); err != nil || s.DryRun {
		return err
	}
	if !s.Committed {
		f := &failure{code: exitTooFew, what: "snapshot " + short(s.Snapshot) + " is partial: too few friends took its data for the redundancy that was asked for",
			meaning: "it can be restored now, but a friend or two more that are lost could end that; the peer completes it by itself as soon as enough friends are here",
			next:    "gotong status; gotong peers shows who is away"}
		if s.Refused != "" {
			f.what += "; " + s.Refused
			f.meaning = "it can be restored now, but a friend or two more that are lost could end that; the peer completes it by itself when there is room for it"
			f.next = "give more, ask friends to, or invite others: gotong peers"
		}
		return f
	}
	if s.Skipped > 0 {
		return &failure{code: exitSkipped, what: countText(s.Skipped, "item was", "items were") + " skipped",
			meaning: "everything else is in the snapshot", next: "make them readable or exclude them, and run the backup again"}
	}
	return nil
}

func (a *app) showBackupSummary(s *controlv1.BackupSummary) error {
	if a.json {
		return a.printJSON(struct {
			Type          string  `json:"type"`
			Snapshot      string  `json:"snapshot"`
			Set           string  `json:"set,omitempty"`
			Files         uint64  `json:"files"`
			NewFiles      uint64  `json:"new_files"`
			ChangedFiles  uint64  `json:"changed_files"`
			Dirs          uint64  `json:"dirs"`
			Bytes         uint64  `json:"bytes"`
			NewBytes      uint64  `json:"new_bytes"`
			Duplicate     uint64  `json:"duplicate_bytes"`
			StoredBytes   uint64  `json:"stored_bytes"`
			Segments      uint64  `json:"segments"`
			Seconds       float64 `json:"seconds"`
			Committed     bool    `json:"committed"`
			Complete      bool    `json:"complete"`
			SurvivesSites int32   `json:"survives_sites"`
			Skipped       uint64  `json:"skipped"`
			Excluded      uint64  `json:"excluded"`
			Warned        uint64  `json:"warned"`
			Redundancy    string  `json:"redundancy"`
			Note          string  `json:"note,omitempty"`
			Refused       string  `json:"refused,omitempty"` // who took less than their part, and why
			DryRun        bool    `json:"dry_run,omitempty"`
		}{"summary", s.Snapshot, s.Set, s.Files, s.NewFiles, s.ChangedFiles, s.Dirs, s.Bytes, s.NewBytes, s.DuplicateBytes,
			s.StoredBytes, s.Segments, s.Seconds, s.Committed, s.Complete, s.SurvivesSites, s.Skipped, s.Excluded, s.Warned,
			s.Redundancy, s.Note, s.Refused, s.DryRun})
	}
	took := time.Duration(s.Seconds * float64(time.Second))
	files := countText(s.Files, "file", "files") + ", " + bytesText(s.Bytes)
	changes := fmt.Sprintf("%s new, %s changed", countText(s.NewFiles, "file", "files"), humanize.Comma(int64(s.ChangedFiles)))
	if s.Excluded > 0 {
		changes += ", " + countText(s.Excluded, "entry", "entries") + " left out as asked"
	}
	if s.DryRun {
		fmt.Fprintf(a.stdout, "Would back up %s (%s) and store %s of new data, file lists included. Nothing was stored.\n", files, changes, bytesText(s.NewBytes))
		if s.Note != "" {
			fmt.Fprintln(a.stdout, printable(s.Note))
		}
		return nil
	}
	fmt.Fprintf(a.stdout, "Snapshot %s: %s in %s (%s)\n", short(s.Snapshot), files, took.Round(time.Millisecond), rateText(s.Bytes, took))
	fmt.Fprintln(a.stdout, changes)
	where := "" // not all of them have theirs
	if s.Complete {
		where = " on " + countText(uint64(s.Holders), "friend's machine", "friends' machines")
	}
	fmt.Fprintf(a.stdout, "New data %s, stored with redundancy %s as %s%s\n", bytesText(s.NewBytes), s.Redundancy, bytesText(s.StoredBytes), where)
	fmt.Fprintln(a.stdout, survivalText(s))
	return nil
}

// short is an id as people read it.
func short(id string) string { return id[:min(len(id), 12)] }

func survivalText(s *controlv1.BackupSummary) string {
	text := "Safe: survives the loss of any " + countText(uint64(max(s.SurvivesSites, 0)), "site.", "sites.")
	if s.SurvivesSites <= 0 {
		text = "Weak: it survives the loss of no friend's site."
	}
	if s.Committed && !s.Complete {
		text += " Some holders did not answer in time; the peer completes the redundancy when they do."
	}
	if s.Refused != "" {
		text += "\nNot complete; " + printable(s.Refused) + "."
	}
	if s.Note != "" {
		text += "\n" + printable(s.Note)
	}
	return text
}
