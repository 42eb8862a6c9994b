package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mdp/qrterminal/v3"
	"github.com/spf13/cobra"

	"gotong/grid"
	"gotong/grid/disk"
	"gotong/grid/invite"
	controlv1 "gotong/proto/control/v1"
)

const sheetColumns = 72

func (a *app) recoverySheetCommand() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "recovery-sheet",
		Short: "Print the sheet of paper with which you come back after losing everything",
		Long: `Recovery-sheet prints what gotong recover needs on an empty machine: your recovery
phrase, which it asks for and does not store, the hash of the grid, and the ids
and addresses of up to three friends, as text and as a QR code. Print it and keep
it where you keep papers. Whoever has it can read and continue your backups.`,
		Example: "  gotong recovery-sheet --out sheet.txt\n  gotong recovery-sheet --phrase-file phrase.txt | lpr",
		Args:    exactArgs(0),
	}
	c.Flags().StringVar(&out, "out", "", "file to write, readable by you only (default standard output)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		return a.callPeer(c.Context(), func(ctx context.Context, peer controlv1.ControlClient) error {
			own, err := a.provePhrase(ctx, peer)
			if err != nil {
				return err
			}
			sheet, err := newSheet(own, time.Now())
			if err != nil {
				return err
			}
			return a.printSheet(own, sheet, out)
		})
	}
	return c
}

func newSheet(own ownPhrase, now time.Time) (invite.Sheet, error) {
	sheet := invite.Sheet{Phrase: own.phrase, Created: now}
	var err error
	if sheet.Grid, err = grid.ParseGridID(own.self.Grid); err != nil {
		return sheet, err
	}
	for _, m := range own.self.Members {
		id, err := grid.ParsePeerID(m.Peer)
		if err != nil {
			return sheet, err
		}
		sheet.Members = append(sheet.Members, invite.SheetMember{Peer: id, Addresses: m.Addresses})
	}
	if len(sheet.Members) == 0 {
		return sheet, &failure{code: exitTooFew, what: "no friend's address is known yet", meaning: "a sheet without one does not lead back", next: "gotong invite, then this again"}
	}
	return sheet, nil
}

func (a *app) printSheet(own ownPhrase, sheet invite.Sheet, out string) error {
	var text bytes.Buffer
	if a.json {
		line := struct {
			Sheet   string   `json:"sheet"`
			Phrase  string   `json:"recovery_phrase"`
			Grid    string   `json:"grid"`
			Members []string `json:"members"`
		}{sheet.Encode(), own.phrase.String(), own.self.Grid, contactLines(sheet)}
		inner := app{stdout: &text}
		if err := inner.printJSON(line); err != nil {
			return err
		}
	} else {
		writeSheet(&text, own, sheet, out == "" && isTerminal(a.stdout))
	}
	if out == "" {
		_, err := a.stdout.Write(text.Bytes())
		return err
	}
	if err := disk.WriteFile(out, text.Bytes(), 0o600); err != nil {
		return &failure{code: exitFailed, what: fmt.Sprintf("cannot write the sheet: %v", err), meaning: "nothing was written", next: "another --out FILE", cause: err}
	}
	fmt.Fprintf(a.stderr, "The sheet is in %s. Print it, then delete the file: it has your recovery phrase.\n", out)
	return nil
}

func contactLines(sheet invite.Sheet) []string {
	out := []string{}
	for _, m := range sheet.Members {
		out = append(out, m.Peer.String()+"@"+strings.Join(m.Addresses, ","))
	}
	return out
}

// writeSheet writes the sheet as text. screen says that light shows dark there.
func writeSheet(w io.Writer, own ownPhrase, sheet invite.Sheet, screen bool) {
	fmt.Fprintf(w, "GOTONG RECOVERY SHEET\n\nGrid     %s\nOwner    %s\nMade     %s\n\n", printable(own.self.GridName), own.self.Owner, sheet.Created.Format(time.DateOnly))
	fmt.Fprint(w, `Keep this paper where you keep important papers. Whoever has it can read and
continue your backups. Nobody can help you without the 24 words.

If your computer is lost:

 1. Install gotong on any computer.
 2. Type the 24 words below into a file, say phrase.txt.
 3. Run, with one of the friends below (try the next if one does not answer):

        gotong recover FRIEND --phrase-file phrase.txt

    Or read the square at the end with a phone, save its text as sheet.txt, and
    run: gotong recover --sheet sheet.txt
 4. Run: gotong up
 5. Run: gotong restore latest --target DIR

If none of these friends answers, any other friend in the grid will do: ask for an
invite code and run: gotong recover CODE --phrase-file phrase.txt

The 24 words:

`)
	printPhrase(w, own.phrase.String())
	fmt.Fprint(w, "\nFriends:\n\n")
	for i, line := range contactLines(sheet) {
		name := ""
		if i < len(own.self.Members) {
			name = own.self.Members[i].Name
		}
		fmt.Fprintf(w, "  %s\n    %s\n", printable(name), line)
	}
	fmt.Fprintf(w, "\nGrid hash: %s\n\nAll of the above as one word, which the square says too:\n\n", own.self.Grid)
	word := strings.ToUpper(sheet.Encode())
	for rest := word; rest != ""; rest = rest[min(len(rest), sheetColumns):] {
		fmt.Fprintln(w, rest[:min(len(rest), sheetColumns)])
	}
	fmt.Fprintln(w)
	var square bytes.Buffer
	qr := qrterminal.Config{Level: qrterminal.L, Writer: &square, HalfBlocks: true, QuietZone: 4,
		BlackChar: "█", WhiteChar: " ", BlackWhiteChar: "▀", WhiteBlackChar: "▄"}
	if screen {
		qr.BlackChar, qr.WhiteChar, qr.BlackWhiteChar, qr.WhiteBlackChar = " ", "█", "▄", "▀"
	}
	qrterminal.GenerateWithConfig(word, qr)
	// The rows are odd in number, and the half line left over is drawn dark: it
	// is part of the margin and goes.
	lines := strings.Split(strings.TrimRight(square.String(), "\n"), "\n")
	if last := lines[len(lines)-1]; strings.Trim(last, qr.WhiteBlackChar) == "" {
		lines = lines[:len(lines)-1]
	}
	fmt.Fprintln(w, strings.Join(lines, "\n"))
}
