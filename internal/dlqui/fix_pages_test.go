package dlqui

import (
	"net/url"
	"strings"
	"testing"
)

func TestFixIsShownOnSamplesAndOnAllEvents(t *testing.T) {
	messages := append(queueOf(3, userDetail), rejected(3, userDetail, userData("x")), rejected(4, userDetail, userData("5"), "dlq_replays", "3"))
	b := open(t, &fakeQueue{messages: messages})
	id := faultID(userDetail)
	page := b.get("/faults/" + id + "/fix")
	b.want(page, "Suggested from the detail: .user.userId |= tonumber", `"userId": "0" "userId": 0`, "passes", "stays", "tonumber cannot be applied",
		"worker dlq replay --fault "+id+" --jq '.user.userId |= tonumber' --dry-run")
	if strings.Contains(page, secret) {
		t.Error("private data is shown")
	}
	checked := "/faults/" + id + "/fix?all=1&jq=" + url.QueryEscape(".user.userId |= tonumber | del(.privateMetadata)")
	b.until(func() bool { return !strings.Contains(b.get(checked), "checked …") })
	b.want(b.get(checked), "3 would pass", "1 would be rejected again", "1 were replayed too often", "3 lose data", "user.userId string → number 3", "privateMetadata object removed · data disappears 3")
	// The samples follow the expression as it is typed.
	part := b.get("/faults/" + id + "/fix/samples?jq=" + url.QueryEscape("del(.user)"))
	if b.want(part, "passes", "disappears"); strings.Contains(part, "<html") {
		t.Error("the part is a whole page")
	}
	b.want(b.get("/faults/"+id+"/fix/samples?jq="+url.QueryEscape(".[")), "Expected a jq expression")
	b.want(b.get("/faults/"+id+"/fix/samples?jq="+url.QueryEscape(strings.Repeat("x", maxExpression+1))), "longer than 16 KiB")
}

func TestCheckIsStreamedUntilItIsDone(t *testing.T) {
	b := open(t, &fakeQueue{messages: queueOf(5, userDetail)})
	id := faultID(userDetail)
	b.get("/faults/" + id + "/fix?all=1&jq=.")
	stream := b.get("/faults/" + id + "/fix/live?jq=.")
	if b.want(stream, "5 would be rejected again"); !strings.HasPrefix(stream, "event: part\ndata: ") || !strings.HasSuffix(stream, "event: done\ndata: \n\n") {
		t.Errorf("stream %q", stream)
	}
	b.want(b.get("/faults/"+id+"/fix/live?jq=other"), "load the page again")
}
