"""Texts of the conformance cases, written for this purpose: plain ones first, then what runtimes stumble over."""

from __future__ import annotations

_KETTLE = (
    "Fill the kettle with fresh water up to the line marked 1.2 l, never beyond it. Close the lid until it clicks,"
    " then press the switch on the handle. The blue lamp glows while the water heats and goes out when the kettle"
    " has switched itself off, which takes about three minutes. Remove lime once a month: pour in half a litre of"
    " vinegar, wait for an hour and rinse twice. If the kettle was switched on without water, it turns itself off"
    " after ten seconds; let it cool down for a quarter of an hour before you use it again."
)
_BRIDGE = (
    "The old bridge over the Wern was built between 1587 and 1591 by the mason Veit Holm, whose mark can still be"
    " seen on the third pillar. It replaced a ferry that had carried salt and cloth for two hundred years. In the"
    " flood of March 1784 two of its seven arches fell; they were rebuilt in brick, because the quarry at Aldau had"
    " been closed. Trams crossed the bridge from 1902 until 1958. Since then it has been open to people on foot and"
    " to bicycles alone."
)
_BEES = (
    "A colony of bees needs about twenty kilograms of honey to live through the winter. In October the keeper"
    " narrows the entrance, so that mice stay out, and puts a strap around the hive against storms. The bees do not"
    " sleep: they sit in a ball around the queen and warm each other by trembling with the muscles of their wings."
    " In the middle of the ball it is 25 °C, at its edge about 10 °C. On the first mild day of February they fly"
    " out to clean themselves."
)
_BREAD = (
    "Stir 500 g of rye flour, 350 ml of warm water and a spoonful of salt into the sour dough. Let it rest under a"
    " damp cloth for four hours. Heat the oven to 240 °C and put a bowl of water on its floor. Bake the loaf for"
    " ten minutes, then turn the heat down to 190 °C and bake it for fifty minutes more. It is done when it sounds"
    " hollow as you knock on its bottom."
)
_BURN = (
    "Hold a burn under cool running water for twenty minutes. Do not use ice, which harms the skin further, and do"
    " not put butter or flour on the wound. Take off rings and watches before the hand swells. Cover the burn"
    " loosely with a clean cloth. A burn that is larger than the palm of the hand, or lies on the face, must be"
    " seen by a doctor."
)
_LIGHTHOUSE = (
    "The lighthouse of Skarn stands 31 metres high on a rock two miles off the coast. Its first lamp burned whale"
    " oil; in 1893 it was replaced by paraffin and in 1926 by an electric bulb no larger than a fist. Keepers were"
    " relieved every six weeks, if the sea allowed it. The longest wait, in the winter of 1911, lasted 73 days."
    " Ingrid Moe, who kept the light for nineteen years, was the last of them: since 1987 it has been run from the"
    " harbour office."
)
_BATTERY = (
    "The battery lasts for eight hours of use or about two weeks in standby. Charge it fully before the first use."
    " When the lamp beside the socket blinks red, less than ten per cent is left. Do not charge it below freezing"
    " point. After some five hundred charges it holds four fifths of what it held when it was new; a dealer can"
    " replace it for $49."
)

CASE_TEXTS: tuple[tuple[str, str], ...] = (
    ("How long does it take until the kettle switches itself off?", _KETTLE),
    ("What is used to remove lime?", _KETTLE),
    ("Who built the old bridge over the Wern?", _BRIDGE),
    ("When did trams cross the bridge?", _BRIDGE),
    ("Why were two arches rebuilt in brick?", _BRIDGE),
    ("How much honey does a colony need for the winter?", _BEES),
    ("How do the bees keep each other warm?", _BEES),
    ("At which temperature is the loaf baked first?", _BREAD),
    ("How long must a burn be held under water?", _BURN),
    ("Who was the last keeper of the light at Skarn?", _LIGHTHOUSE),
    ("what did the first lamp burn", _LIGHTHOUSE),
    ("What does a red blinking lamp mean?", _BATTERY),
    # A single token on one side or on both.
    ("Why?", "Because."),
    ("Where", "Rome"),
    ("?", "The switch is behind the grey panel."),
    # White space of all kinds, which spaCy makes tokens of.
    ("  Which   floor? ", "\n\nThe  office is\ton the\u00a0third floor.\r\n\r\nAsk at the desk.  "),
    ("Where do lines end?", "One line\u2028another\u2029and\u0085a third\x0bwith\x0ca feed\x1fand a unit."),
    # Contractions, abbreviations, emoticons, exceptions of the tokenizer.
    ("Who can't come?", "Mr. O'Neill can't come, he's ill :-( but Dr. Smith'll be there at 5p.m. (I'd've asked her.)"),
    ("what's left?", "y'all ain't gonna find nothin' 'cause we've 'em all... WE’LL SEE; don’t! :D xD <3 ¯\\_(ツ)_/¯"),
    # Addresses, numbers, units, dashes, hashes.
    (
        "What is the address?",
        "See https://example.org/a_(b)?q=1&r=%20#top, or mail to info@example.co.uk; www.example.com.",
    ),
    (
        "How much is it?",
        "It weighs 1,250.5kg—not 1.3t—and costs £3.50/kg, i.e. US$4,375 (≈€4 020,75) at ±5%, ver. 2.0.1-rc3.",
    ),
    ("Which part number?", 'Use #A-42/b_7 (not A42), M8×25mm, 10-20km/h, 6\'2", 3/4", C++, .NET, AT&T, e-mail, 24/7.'),
    # Other scripts, combining marks, right-to-left, full width, astral characters, joiners, variation selectors.
    (
        "Wo liegt Straße?",
        "Die Straße „Über den Höhen“ liegt in Österreich; naïve façade, Zürich, Ærøskøbing, İzmir, ŁÓDŹ.",
    ),
    (
        "What is the e\u0301 made of?",
        "Cafe\u0301 and Caf\u00e9 look alike, but e\u0301 is e and U+0301; Z\u0351\u0350a\u0316l\u0320go too.",
    ),
    (
        "谁住在东京?",
        "山田さんは東京に住んでいます。Он живёт в Москве. هو يسكن في القاهرة، وهي في دمشق؟ वह दिल्ली में रहता है।",
    ),
    ("Which emoji?", "👩‍👩‍👧‍👦 waved 👋🏽 under the 🏳️‍🌈 flag🇩🇪🇫🇷, 1️⃣ 2️⃣, ❤️‍🔥; 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 and ＡＢＣ１２３ too."),
    (
        "Is it hidden?",
        "zero\u200bwidth, soft\u00adhyphen, \u202eright to left\u202c, \ufeffmark, \u2060joiner, nul\x00l and \ufffd.",
    ),
    (
        "What is in quotes?",
        "“Well,” she said—‘never’—«jamais»… \"not\" ''once'' ``or`` twice?!?! (((really))) [sic] {so}...",
    ),
    # Longer than a word's characters, and nothing that a vocabulary knows.
    (
        "Which is the longest?",
        "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft beats " + "ab" * 60,
    ),
    ("zxqv blorp?", "Flirbu gronkt vzzt qwpl, mrrk 7x7x7 snarp-glib_klo ÞßðđŋħŧŦ zzzyx."),
)

# Texts in small windows, so that an answer stands in a seam.
WINDOWED_TEXTS: tuple[tuple[str, str], ...] = (
    ("How long must a burn be held under water?", _BURN),
    ("How much honey does a colony need for the winter?", _BEES),
)

# A document of more tokens than a window of ordinary size has, asked at its ends.
_HANDBOOK = "\n\n".join((_KETTLE, _BRIDGE, _BEES, _BREAD, _BURN, _LIGHTHOUSE, _BATTERY))
LONG_TEXTS: tuple[tuple[str, str], ...] = (
    ("How long does the battery last in standby?", _HANDBOOK),
    ("How long does it take until the kettle switches itself off?", _HANDBOOK),
)

_SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2009\u2028\u2029\u202f\u205f\u3000\u180e\ufeff"

# Only cut into tokens: nobody asks these.
TEXTS: tuple[str, ...] = (
    # Nothing, and hardly anything; blanks at the beginning, between and at the end.
    "",
    " ",
    "  ",
    "a",
    " a",
    "  a  b   ",
    "\u200b",
    # Each kind of white space alone, between words, twice, and behind a blank; and U+180E and U+FEFF, which are none.
    *(f"a{space}b {space}c{space}{space}d{space}" for space in _SPACES),
    "one\r\ntwo\r\n\r\nthree\n\r",
    # Words that exceptions split, in all their cases, at affixes, and glued to others.
    "can't Can't CAN'T cannot gonna Gotta o'clock ma'am e.g. a.m. 10a.m. Co. Calif. C'mon I'd've y'all'd",
    "(can't) \"gonna\" -can't can't- can't/won't can't. U.S. U.S.A. u.s. (U.S.) vs. vs.. St.St.",
    "don’t Don’t we’ll ’cause ‘tis 'tis 's 'S ’s it's IT'S the '90s rock'n'roll",
    # Emoticons, which the affixes take apart and phrases put together again.
    "(:) :-) :) :)) ((: (-: :-D xD :( :(( (:( ):  <3 <33 :3 :33 \\o/ 0_0 (o_o) (._.) :-/ :/ =) ^_^ ^___^ :')"
    " :’) (¬_¬) (ಠ_ಠ)",
    "(╯°□°）╯︵┻━┻ ┬─┬ ¯\\_(ツ)_/¯ (¯\\(ツ)/¯)",
    # Infixes, and what looks like them.
    "a-b a--b a—b A.b a.B 1.b a.1 a,b 1,2 a:b 1:2 a/b 1/2 a=b a+b 1+2 1-2 1*2 a~b a_b a..b a...b…c ...a a... x^2"
    " 10^6 1x2",
    "3km 3 km 3kmh $3 3$ US$3 €3,50 3% 3°C 3°C. 20.°C 5'6\" #1 @me me@ +1 -1 ±1 1st 2ND 1990s 1990's",
    # Addresses and what is none.
    "http://a.bc https://üñí.example/ä?ö=ü#ß ftp://u:p@h.example:21/x;y (http://a.bc). a.bc/x a.b 1.2.3.4 10.0.0.1"
    " 999.1.1.1 mailto:x@y.zz x@y x.y@z.example www.a.b.example/ http:// //a.bc a://b.cd localhost:80 例え.jp",
    # Signs in a row, at either end, and nothing else.
    "!!! ?! ... .... .. . ,, ;; '' \"\" `` “„” «» ((())) [[]] {{}} <<>> <a> </a> && ** __ -- — –– ---",
    # Case that changes a word's length or depends on its place, letters beyond the BMP, marks, joiners, selectors.
    "İSTANBUL ΌΔΟΣ ΟΔΟΣ. ΣΑΣ ǅ ß ẞ STRASSE Ñ N\u0303 ﬁre ﬀ KELVIN \u212a Å \u212b 𐐀𐐁 ᾼ ŉ I\u0307",
    "𝔘𝔫𝔟𝔢𝔨𝔞𝔫𝔫𝔱𝔢𝔰𝔚𝔬𝔯𝔱𝔩𝔞𝔫𝔤 👍👍🏿 👩🏽‍🚀👨‍👩‍👧 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇩🇪 ☎️ ☎ 1️⃣ e\u0301\u0301\u0301 \u0301 ก็"
    " ก็็็ שָׁלוֹם, עולם! \u200f(abc)\u200f سلام، دنیا؟ ।॥",
    "東京タワー。「引用」、？！ ｶﾞ １２３，４５６ ㍿ ㎏ 3㎏ 한국어는 ไทยไม่เว้นวรรค ⅓ 3½ ² x² ⑩ Ⅻ",
    # Controls and what is no character.
    "nul\x00nul \x01\x02 \x7f bell\x07 esc\x1b[0m \ufffe \uffff \U0010ffff \ue000 \u202a\u202b\u202c\u2066\u2069",
    # A word of 1,000 characters, and one of 300 signs.
    "x" * 1_000,
    "(" * 150 + ")" * 150,
)

# Logits with the most tokens of an answer: one token, a tie, the order of ties, an answer that would be too long, large
# and equal numbers.
DECODER_CASES: tuple[tuple[tuple[float, ...], tuple[float, ...], int], ...] = (
    ((0.5,), (-0.5,), 30),
    ((1.0, 2.0, 1.0), (1.0, 0.0, 1.0), 30),
    ((2.0, 0.0, 2.0, 0.0), (0.0, 2.0, 0.0, 2.0), 2),
    ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 2),
    ((9.0, 0.0, 1.0, 0.0, 3.0), (0.0, 1.0, 0.0, 0.5, 8.0), 3),
    ((0.0, 5.0, 0.0), (6.0, -1.0, 4.0), 30),
    ((800.0, -800.0, 790.0), (-800.0, 799.0, 809.0), 30),
)
