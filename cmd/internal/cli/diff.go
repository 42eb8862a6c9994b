package cli

import (
	"context"
	"fmt"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	controlv1 "gotong/proto/control/v1"
)

func (a *app) diffCommand() *cobra.Command {
	var metadata bool
	c := &cobra.Command{
		Use:   "diff SNAPSHOT[:PATH] SNAPSHOT[:PATH]",
		Short: "Show what changed between two snapshots",
		Long: `Diff prints what the second snapshot has more (+), less (-) or other (M content,
T type, m only times, mode, owner or attributes) than the first. No content is
read: the snapshots know the hashes.`,
		Example: "  gotong diff 3f2a9c latest\n  gotong diff 3f2a9c:/home/me latest:/home/me --metadata",
		Args:    exactArgs(2),
	}
	c.Flags().BoolVar(&metadata, "metadata", false, "show entries of which only times, mode, owner or attributes changed too")
	c.RunE = func(c *cobra.Command, args []string) error {
		return a.withPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			stream, err := peer.Diff(ctx, &controlv1.DiffRequest{From: args[0], To: args[1]})
			if err != nil {
				return err
			}
			return each(stream, func(e *controlv1.DiffEvent) error {
				if sum := e.GetSummary(); sum != nil {
					return a.printDiffSummary(sum)
				}
				if change := e.GetChange(); change.Change != "metadata" || metadata {
					return a.printChange(change)
				}
				return nil
			})
		})
	}
	return c
}

var changeMarks = map[string]string{"added": "+", "removed": "-", "content": "M", "type": "T", "metadata": "m"}

func (a *app) printChange(c *controlv1.DiffChange) error {
	if a.json {
		document := struct {
			Type       string     `json:"type"`
			Change     string     `json:"change"`
			Path       string     `json:"path"`
			PathBase64 []byte     `json:"path_base64,omitempty"`
			From       *entryJSON `json:"from,omitempty"`
			To         *entryJSON `json:"to,omitempty"`
		}{"change", c.Change, string(c.Path), notText(c.Path), nil, nil}
		if c.From != nil {
			document.From = newEntryJSON(c.From, "")
		}
		if c.To != nil {
			document.To = newEntryJSON(c.To, "")
		}
		return a.printJSON(document)
	}
	name := printable(string(c.Path))
	if entry := entryOf(c.To, c.From); entry.GetType() == "dir" {
		name += "/"
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s\n", changeMarks[c.Change], name)
	return err
}

func entryOf(a, b *controlv1.LsEntry) *controlv1.LsEntry {
	if a != nil {
		return a
	}
	return b
}

func (a *app) printDiffSummary(s *controlv1.DiffSummary) error {
	if a.json {
		return a.printJSON(struct {
			Type         string `json:"type"`
			Added        uint64 `json:"added"`
			Removed      uint64 `json:"removed"`
			Content      uint64 `json:"content"`
			Metadata     uint64 `json:"metadata"`
			Types        uint64 `json:"types"`
			AddedBytes   uint64 `json:"added_bytes"`
			RemovedBytes uint64 `json:"removed_bytes"`
		}{"summary", s.Added, s.Removed, s.Content, s.Metadata, s.Types, s.AddedBytes, s.RemovedBytes})
	}
	_, err := fmt.Fprintf(a.stdout, "%s added, %s removed, %s with other content, %s of another type, %s with other metadata only; %s more, %s less\n",
		humanize.Comma(int64(s.Added)), humanize.Comma(int64(s.Removed)), humanize.Comma(int64(s.Content)), humanize.Comma(int64(s.Types)),
		humanize.Comma(int64(s.Metadata)), bytesText(s.AddedBytes), bytesText(s.RemovedBytes))
	return err
}
