"""What a provider's sentence means where neither its status nor its code says so: a prompt that does not fit, an
account without money, a key that is not good.

Servers word these in dozens of ways and change them. So what is looked for are the few words that carry the meaning,
next to each other, in a text without what joins and quotes words; not the sentences. Every expression is linear.
"""

import re

_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]{1,15}://\S+", re.IGNORECASE)
_QUOTED = re.compile(r"""(?<!\w)(?:'[^']{0,100}'|"[^"]{0,100}"|`[^`]{0,100}`)(?!\w)""")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINTS = re.compile(r"[\s_`'\"\u2019*()\[\]{}|\\-]+")


def _any(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives))


_RATE = _any(
    r"rate ?limit|too many requests|throttl|concurren|\b[rt]p[mds]\b|slow down|please wait",
    r"\bper (?:minute|min|second|sec|hour|day)\b|\brequests? (?:limit|quota)",
    r"(?:try again|retry)(?: again)? (?:in|after) \d",
)
"""Too much at once: neither too long nor unpaid."""


def _plain(text: str) -> str:
    """In lower case, without addresses, quotes and what joins words: ``max_model_len`` is ``max model len``."""
    return _JOINTS.sub(" ", _CAMEL.sub(" ", _ADDRESS.sub(" ", text))).lower().strip()


# --- a prompt that does not fit -----------------------------------------------------------------------------

_CAP = _any(
    r"max(?:imum)? (?:(?:new|completion|output|generated|response) )?tokens?\b(?! allowed| in )",
    r"(?:output|completion|generated) tokens?\b|num predict",
)
"""How long the answer may be, which the client says."""

_PROMPT = _any(
    r"\b(?:prompts?|inputs?|messages?|conversation|history|sequence)\b",
    r"\brequest(?: has| have| contains?| length| exceed| is too long| \d)",
    r"\brequested (?:\d|about|a total|tokens? count)",
)
"""What was sent."""

_OF_A_NAME = _any(
    r"\b(?:unknown|unrecogni[sz]ed|unsupported|unexpected)(?: \w+){0,2}"
    r" (?:parameter|argument|field|propert|option|keyword)",
    r"\bextra (?:inputs?|fields?)(?: \w+)? not (?:permitted|allowed)",
)
"""A member that the server does not know, and that may have any name."""

_BYTES = _any(r"\d ?(?:[kmg]i?b|bytes)\b", r"\b(?:files?|images?|audio|video|payload|entity)\b")

_MANY = r"(?: \d[\d,.+ ]*(?:k|tokens?)?)?"  # the figure that some put behind what they count

_TOO_LONG = _any(
    # the room: context, window, model, sequence
    r"context ?(?:length|window|size|limit)s?(?: \w+){0,3} ?(?:exceed|overflow|is full)",
    r"exceed\w*(?: [\w,]+){0,6} context(?: length| window| size| limit|[.,;:]|$)",
    r"context (?:the )?overflow|out ?of ?context|exceed context",
    r"max\w* context (?:length|window|size|(?:is |was )?exceed)",
    r"(?:longer|larger|greater|bigger|more) than(?: \w+){0,4}"
    r" (?:context (?:length|window|size|limit)|(?:model|seq\w*|prompt|input) len|tokens allowed)",
    r"(?:max\w*|supported|allowed|configured|model|model s|only|your)(?: \w+){0,2}"
    r" (?:context|prompt|input|model|seq\w*) (?:length|len|window|size)s?(?: is| of| was)?:? ?(?:only |just )?\d",
    r"context (?:length|window|size) (?:is|of) only",
    # the prompt
    rf"\b(?:prompts?|inputs?|conversation|context|chat history|messages?|input (?:text|length)){_MANY}"
    r"(?: is| are| was| were)? too (?:long|large|big)",
    r"\brequest(?: is)? too long",
    rf"\b(?:prompts?|inputs?|messages?|request|conversation){_MANY}(?: has| have)? exceed\w*(?: the| your| its)?"
    r"(?: max\w*| model| model s| allowed| available)*"
    r" (?:length|input|prompt|tokens?\b|token limit|number of tokens|limit of \d)",
    rf"\b(?:input|prompt|request|sequence) (?:length|len){_MANY}(?: [\w,]+){{0,6}} (?:exceed|greater|larger|longer)",
    rf"\b(?:input|prompt|request\w*|total) tokens?(?: count)?(?: of)?{_MANY}(?: \w+){{0,5}} exceed",
    r"too many (?:input|prompt) tokens",
    r"tokens in (?:the )?(?:prompt|request|input|messages)(?: \w+){0,2} (?:exceed|more than)",
    rf"token count(?: is)?{_MANY},? but (?:the )?model only supports",
    r"too large for(?: \S+){1,2} model|too large for model with",
    r"inputs? must have (?:less|fewer|no more) than \d+ tokens|inputs? tokens \+",
    # what to do about it
    r"(?:reduce|shorten|decrease) (?:the )?(?:length|size|number of tokens) (?:of|in) (?:the |your )?(?:\w+ )?"
    r"(?:messages|prompt|inputs?|conversation|context)",
    r"shorten the prompt|(?:provide|use|using|send)(?: an?)? shorter (?:or fewer )?(?:inputs?|prompts?|messages?)\b",
    # what some say and nobody else
    r"(?:^|[.:;,] )tokens? limit exceeded|tokens?:? size limit exceeded",
    r"range of input length should be|exceeded model token limit|cannot truncate prompt|tokens limit reached",
    r"上下文.{0,12}(?:超|过长)|超[过出]了?(?:模型)?的?(?:最大)?(?:上下文|输入|长度)",
    r"(?:输入|提示词|请求|prompts?)(?:内容|文本)?.{0,6}(?:过长|超长|太长)",
)

# Three things said in one sentence, in this order: what was sent, is more than, what there is room for.
_SENTENCE = re.compile(r"[.;!?](?:\s|$)")
_SENT = re.compile(r"\b(?:prompts?|inputs?|messages?|conversation|history|sequence|requests?|tokens?)\b")
_MORE = _any(
    r"\b(?:exceed|(?:longer|larger|greater|bigger|more) than|above|beyond|over the)",
    r"\b(?:not|cannot|can t|doesn t) fit|>",
)
_ROOM = re.compile(r"\b(?:model|context|max\w*|limits?|supported|supports|allowed|window|capacity|n ctx)\b")
_OTHERS = _any(
    r"\b(?:tools?|functions?|choices|images?|items?|elements?|characters|sequences|requests in|stops?|names?)\b",
    r"\b(?:schema|depth|results)\b",
)
"""Other things that there may be too many of."""


def is_too_long(text: str) -> bool:
    """Whether it says that a prompt does not fit into a model's context.

    A cap on the answer that no model grants is not meant, nor what is sent per minute, nor a size in bytes.
    """
    plain = _plain(text)
    if _RATE.search(plain) or _OF_A_NAME.search(plain):
        return False
    uncapped = _CAP.sub(" ", plain)
    if uncapped != plain and not _PROMPT.search(uncapped):
        return False
    if "token" not in plain and _BYTES.search(plain):
        return False
    return _TOO_LONG.search(plain) is not None or any(map(_outgrows, _SENTENCE.split(uncapped)))


def _outgrows(sentence: str) -> bool:
    sent = _SENT.search(sentence)
    more = _MORE.search(sentence, sent.end()) if sent else None
    room = _ROOM.search(sentence, more.end()) if more else None
    about = room is not None and ("token" in sentence or "context" in sentence or "prompt" in sentence)
    return about and _OTHERS.search(sentence) is None


# --- an account without money -------------------------------------------------------------------------------

_GONE = r"(?:too low|insufficient|not enough|exhausted|depleted|negative|used up|run out|overdue|expired)"
_MONEY = r"(?:balance|credits?|funds|prepayment credits)"
_LIMIT = r"(?:spend|spending|billing|credit|budget|monthly|hard)(?: \w+)? (?:limit|cap|budget)"

_UNPAID = _any(
    rf"\b{_MONEY}(?: \w+){{0,3}} {_GONE}|\bno (?:remaining |available |more )?{_MONEY}\b|\b{_MONEY} not enough",
    rf"\b(?:insufficient|not enough|out of|lacks?|depleted|used all|exhausted)(?: \w+){{0,3}} (?:{_MONEY}|quota)\b",
    rf"\b{_LIMIT}(?: \w+){{0,4}} (?:reach|exceed|hit)|(?:reach\w*|exceed\w*|hit)(?: [\w,]+){{0,5}} {_LIMIT}",
    r"\bbudget(?: \w+){0,3} exceeded|blocked.{0,20}spending limit",
    r"payment (?:is )?(?:required|overdue|failed)|payment method|past (?:due|invoices)|unpaid|arrear",
    r"billing (?:\w+ ){0,3}(?:enabled|disabled|active|inactive|suspended|error)|billing hard limit",
    r"(?:purchase|buy|add)(?: \w+){0,2} credits?\b|\btop up\b|\brecharge\b",
    r"account(?: \w+){0,5} (?:suspended|deactivated|disabled)(?: \w+){0,6}"
    r" (?:balance|billing|payments?|invoices?|spend\w*|credits?)",
    r"account is in good standing|余额不足|欠费|(?:额度|配额)已?(?:不足|用尽|用完|耗尽)|充值",
)

_NO_QUOTA = _any(
    r"exceeded(?: your| the)?(?: \w+)? current quota",
    r"\b(?:user|account|monthly|free|token) quota(?: \w+){0,3} (?:exhausted|used up|exceeded)",
    r"free (?:tier|trial|credits?)(?: \w+){0,5} (?:exhausted|used up|expired|ended)|trial (?:\w+ )?(?:expired|ended)",
)
"""A quota that is bought, unless it comes back by itself."""


def is_unpaid(text: str, *, waits: bool = False) -> bool:
    """Whether it says that an account has no money, or no quota of the kind that is bought, left.

    ``waits``: it also says when to come back. What is quoted is a word of the client's, and not what it says.
    """
    plain = _plain(_QUOTED.sub(" ", _ADDRESS.sub(" ", text)))
    if _RATE.search(plain):
        return False
    return _UNPAID.search(plain) is not None or (not waits and _NO_QUOTA.search(plain) is not None)


# --- a key that is not good ---------------------------------------------------------------------------------

_BAD_KEY = re.compile(
    r"\bapi ?key(?: \w+)? (?:not valid|is not valid|invalid|is invalid|expired|not found|is missing|is required)"
    r"|(?:invalid|incorrect|no|missing|malformed|pass a valid) api ?key"
)


def is_about_the_key(text: str) -> bool:
    """Whether it says that the credential is not good: some say so with 400."""
    return _BAD_KEY.search(_plain(text)) is not None


# --- what is nobody else's business -------------------------------------------------------------------------

_ACCOUNT = re.compile(
    r"\b(?:organi[sz]ation|account|billing|billed|invoice|payment|subscription|plan|tier|quota|balance|credits?|budget"
    r"|workspace|project|tenant|team|spend\w*|upgrade|api ?keys?|credentials?|deployment|contract)\b"
)


def speaks_of_an_account(text: str) -> bool:
    """Whether it says something of the account that the call was made with, rather than of the call."""
    return _ACCOUNT.search(_plain(text)) is not None
