"""The synthetic corpus' words: graded phrases, topics, neutral filling.

Every graded phrase carries its valence on the label's scale, -3 (strongly negative) to 3: what a
reader would score a plain sentence made of it. The grades were made for this file; no
published lexicon was used.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from zlib import crc32


@dataclass(frozen=True)
class Graded:
    """Phrases in order of valence.

    Args:
        phrases: N phrases.
        valences: N valences, ascending.
        rare: N flags; a rare phrase is seldom used in training videos, so that what a pretrained
            encoder knows of its neighbours is worth something.

    Example:
        >>> Graded.parse("good 1.3, bad -1.5").phrases
        ('bad', 'good')
    """

    phrases: tuple[str, ...]
    valences: tuple[float, ...]
    rare: tuple[bool, ...]

    @classmethod
    def parse(cls, *tables: str) -> Graded:
        """Read tables of ``phrase valence`` parted by commas; a fifth are rare."""
        pairs: dict[str, float] = {}
        for table in tables:
            for entry in table.replace("\n", " ").split(","):
                phrase, valence = entry.strip().rsplit(" ", 1)
                pairs.setdefault(phrase.strip(), float(valence))
        ordered = sorted(pairs.items(), key=lambda item: (item[1], item[0]))
        return cls(
            tuple(phrase for phrase, _ in ordered),
            tuple(valence for _, valence in ordered),
            # By its letters, so that a word is rare in every topic or in none.
            tuple(crc32(phrase.encode()) % 5 == 0 for phrase, _ in ordered),
        )

    def span(self, valence: float, *, tolerance: float) -> tuple[int, int]:
        """First and one-past-last row within ``tolerance``; the nearest row when there is none."""
        low = bisect_left(self.valences, valence - tolerance)
        high = bisect_right(self.valences, valence + tolerance)
        if low < high:
            return low, high
        candidates = [row for row in (low - 1, low) if 0 <= row < len(self.valences)]
        nearest = min(candidates, key=lambda row: abs(self.valences[row] - valence))
        return nearest, nearest + 1


_THING = """
superb 2.4, outstanding 2.5, brilliant 2.3, fantastic 2.3, wonderful 2.2, excellent 2.2,
amazing 2.3, terrific 2.2, marvelous 2.2, magnificent 2.4, splendid 2.0, phenomenal 2.5,
exceptional 2.3, first-rate 2.1, top-notch 2.2, stellar 2.2, flawless 2.4, spectacular 2.4,
great 1.8, impressive 1.7, lovely 1.7, delightful 1.9, remarkable 1.6, memorable 1.4,
enjoyable 1.4, good 1.3, nice 1.1, pleasant 1.1, solid 1.0, satisfying 1.3, charming 1.4,
refreshing 1.3, commendable 1.2, promising 0.9, respectable 0.8, decent 0.7, fine 0.6,
reasonable 0.6, okay 0.3, acceptable 0.4, adequate 0.3, passable 0.2, tolerable 0.1, average 0.0,
ordinary -0.1, so-so -0.2, unremarkable -0.4, uneven -0.5, mediocre -0.7, flawed -0.7,
questionable -0.8, forgettable -0.9, underwhelming -1.0, lackluster -1.0, weak -1.1, dull -1.1,
subpar -1.1, unsatisfying -1.2, annoying -1.3, sloppy -1.3, unpleasant -1.3, dreary -1.3,
inferior -1.3, disappointing -1.4, poor -1.4, frustrating -1.4, irritating -1.4, bad -1.5,
shoddy -1.6, laughable -1.6, lousy -1.7, unacceptable -1.9, miserable -1.9, pathetic -2.0,
woeful -2.0, terrible -2.2, awful -2.2, dreadful -2.2, unbearable -2.2, ghastly -2.2,
deplorable -2.2, horrible -2.3, disastrous -2.3, appalling -2.4, disgraceful -2.4,
horrendous -2.4, atrocious -2.5, abysmal -2.5
"""

PERSON = Graded.parse("""
inspiring 2.1, brilliant 2.2, wonderful 2.2, amazing 2.3, fantastic 2.3, excellent 2.1,
outstanding 2.4, exceptional 2.3, superb 2.3, magnificent 2.3, gifted 1.8, talented 1.8, great 1.8,
lovely 1.7, caring 1.6, thoughtful 1.5, impressive 1.6, helpful 1.4, friendly 1.4, kind 1.4,
attentive 1.4, knowledgeable 1.4, generous 1.5, warm 1.3, good 1.2, patient 1.2, nice 1.1,
courteous 1.1, polite 1.0, professional 1.1, pleasant 1.0, competent 0.9, capable 0.8, decent 0.7,
calm 0.5, fine 0.5, quiet 0.0, reserved -0.1, stiff -0.6, slow -0.7, mediocre -0.7, distracted -0.8,
aloof -0.8, inattentive -1.1, cold -1.1, impatient -1.1, disorganized -1.1, unhelpful -1.3,
annoying -1.3, careless -1.4, lazy -1.4, clueless -1.5, dismissive -1.5, unprofessional -1.6,
condescending -1.7, arrogant -1.7, rude -1.8, hopeless -1.8, incompetent -2.0, hostile -2.0,
obnoxious -2.0, dishonest -2.0, awful -2.2, terrible -2.2, dreadful -2.2, horrible -2.3,
insufferable -2.3, appalling -2.4, cruel -2.4
""")

LIKING = Graded.parse("""
cherished 2.2, adored 2.3, loved 2.1, was blown away by 2.4, was thrilled with 2.1,
fell in love with 2.2, was delighted with 2.0, was fascinated by 1.7, was impressed by 1.5,
was charmed by 1.5, was moved by 1.4, was grateful for 1.4, enjoyed 1.4, admired 1.4,
was happy with 1.3, was pleased with 1.2, liked 1.1, appreciated 1.1, was satisfied with 1.1,
was fond of 1.2, was comfortable with 0.7, did not mind 0.3, got used to 0.2, could live with 0.2,
was unsure about -0.3, had doubts about -0.6, was puzzled by -0.5, struggled with -0.8,
grew tired of -1.0, was underwhelmed by -1.0, got bored with -1.1, was unimpressed by -1.1,
was bothered by -1.1, disliked -1.2, was annoyed by -1.3, was frustrated by -1.3,
was unhappy with -1.3, was disappointed by -1.4, was let down by -1.5, was irritated by -1.4,
resented -1.6, was fed up with -1.7, was sick of -1.8, could not stand -2.1, hated -2.2,
detested -2.3, despised -2.4, loathed -2.4, was disgusted by -2.4, was horrified by -2.4,
was appalled by -2.4
""")

DOING = Graded.parse("""
was a triumph 2.4, could not have been better 2.3, was a joy from start to finish 2.2,
took my breath away 2.2, was one of the best I have come across 2.2, exceeded my expectations 1.9,
made my day 1.9, was worth every minute 1.8, was a real treat 1.7, was a real highlight 1.8,
left me smiling 1.6, kept me interested 1.3, was a pleasant surprise 1.5, put me in a good mood 1.5,
won me over 1.4, was worth the wait 1.2, was better than I expected 1.1, met my expectations 0.6,
had its moments 0.5, got the basics right 0.5, did the job 0.4, was neither good nor bad 0.0,
took some getting used to -0.3, was nothing special -0.6, had a few problems -0.6,
could have been better -0.7, left me cold -1.0, was all over the place -1.0, fell flat -1.1,
fell short of what I hoped for -1.1, was worse than I expected -1.2, left a lot to be desired -1.3,
was a letdown -1.4, let us down -1.4, got on my nerves -1.4, made me angry -1.7,
drove me crazy -1.7, bored me to tears -1.8, was a joke -1.8, was a waste of time -1.9,
was an insult -2.1, ruined the whole day -2.2, was a nightmare -2.3, was a complete disaster -2.5,
could not have been worse -2.4, was one of the worst I have come across -2.3
""")

VERDICT = Graded.parse("""
I cannot praise it enough 2.4, five stars from me 2.2, it was everything I hoped for 2.2,
I would recommend it to anyone 1.9, I did not want it to end 1.9, I will definitely be back 1.8,
I was smiling the whole time 1.8, I would gladly do it again 1.7, I felt great afterwards 1.7,
hats off to them 1.7, thumbs up from me 1.5, it was time well spent 1.3, I am glad I tried it 1.3,
I was pleasantly surprised 1.3, it was better than I expected 1.1, I have no complaints 0.9,
I can see why people like it 0.8, it could have been worse 0.3, it was good enough for me 0.6,
I might give it another chance 0.1, I have mixed feelings about it -0.1, it is what it is -0.2,
it could be improved -0.5, I would not go out of my way for it -0.6, I expected a bit more -0.7,
I would think twice next time -0.9, I left early -1.1, it was worse than I expected -1.2,
I was counting the minutes -1.2, thumbs down from me -1.5, I would not recommend it -1.5,
I regret choosing it -1.7, I could not wait for it to end -1.8, I felt cheated -1.9,
shame on them -2.0, I want my money back -2.0, I will never go back -2.0, one star from me -2.2,
I would not wish it on anyone -2.4, it was the worst day in a long time -2.3
""")


@dataclass(frozen=True)
class Topic:
    """What a video is about.

    Args:
        kinds: nouns for the whole, each fits ``it was a good ...``.
        things: noun phrases that the topic's adjectives fit.
        people: noun phrases for persons.
        adjectives: graded, general ones and the topic's own.
        neutral: sentences that judge nothing.
    """

    kinds: tuple[str, ...]
    things: tuple[str, ...]
    people: tuple[str, ...]
    adjectives: Graded
    neutral: tuple[str, ...]
    neutral_sizes: tuple[int, ...] = field(default=())


def _topic(kinds: str, things: str, people: str, adjectives: str, neutral: str) -> Topic:
    """A topic from comma-parted lists; its own adjectives come twice as thick as general ones."""

    def split(text: str) -> tuple[str, ...]:
        return tuple(" ".join(part.split()) for part in text.split(","))

    sentences = split(neutral)
    return Topic(
        split(kinds),
        split(things),
        split(people),
        Graded.parse(_THING, adjectives),
        sentences,
        tuple(len(sentence.split()) for sentence in sentences),
    )


TOPICS: tuple[Topic, ...] = (
    _topic(
        "film, movie, comedy, thriller, sequel, picture",
        """the film, the movie, the plot, the story, the ending, the script, the dialogue,
        the opening scene, the pacing, the second half, the final act, the remake""",
        "the lead actor, the director, the main actress, the comedian, the presenter",
        """gripping 1.8, moving 1.7, hilarious 1.9, touching 1.6, clever 1.4, stunning 2.2,
        captivating 2.0, suspenseful 1.2, watchable 0.6, entertaining 1.5, witty 1.5,
        breathtaking 2.3, heartwarming 1.8, imaginative 1.5, predictable -0.8, cliched -1.0,
        boring -1.5, slow -0.7, confusing -1.0, pointless -1.6, overlong -0.8, clumsy -1.0,
        lifeless -1.5, cringeworthy -1.8, unwatchable -2.4, hollow -1.1, cheesy -0.6, muddled -0.9,
        contrived -0.9, mindless -1.3""",
        """I watched it at home on Friday night, it runs for about two hours,
        my sister had picked it,
        it was shot somewhere in Canada, there were maybe thirty people in the room,
        I had seen the trailer a month before, it is set in the seventies,
        we sat in the third row""",
    ),
    _topic(
        "phone, laptop, camera, product, device, purchase",
        """the phone, the laptop, the battery, the screen, the keyboard, the camera, the blender,
        the vacuum cleaner, the printer, the build quality, the design, the speaker, the charger""",
        "the support agent, the salesperson, the technician, the shop assistant",
        """reliable 1.5, sturdy 1.2, handy 1.0, durable 1.3, intuitive 1.4, sleek 1.2, powerful 1.5,
        useful 1.2, practical 0.9, affordable 0.8, usable 0.4, ingenious 1.9, dependable 1.4,
        fragile -0.9, flimsy -1.3, clunky -1.0, faulty -1.7, useless -2.0, unreliable -1.6,
        overpriced -1.2, worthless -2.3, cheap -0.6, defective -1.8, noisy -0.8, sluggish -1.0,
        cumbersome -0.9, impractical -0.9""",
        """I bought it about three weeks ago, it came in a plain brown box, I use it mostly at work,
        my old one was five years old, it weighs about two pounds, I ordered the black one,
        there is a second button on the side, I set it up on Sunday morning""",
    ),
    _topic(
        "course, lesson, lecture, workshop, class, seminar",
        """the course, the lesson, the lecture, the workshop, the textbook, the final project,
        the tutorial, the explanation, the seminar, the second session, the reading list""",
        "the teacher, the instructor, the tutor, the professor, the guest speaker",
        """informative 1.3, clear 1.0, engaging 1.6, insightful 1.6, stimulating 1.4,
        eye-opening 1.7, useful 1.2, thorough 1.1, inspiring 2.0, accessible 0.9, illuminating 1.7,
        instructive 1.1, dry -0.8, confusing -1.0, boring -1.5, rushed -0.8, superficial -0.9,
        disorganized -1.1, outdated -0.9, impenetrable -1.4, monotonous -1.2, pointless -1.6,
        misleading -1.5, mind-numbing -1.8, repetitive -0.8, incoherent -1.5""",
        """there were twelve of us in the group, we met every Tuesday evening,
        it covers the basics of statistics, the slides are on the website,
        we had a break after an hour,
        I signed up for it in March, the room was on the second floor, it lasts six weeks""",
    ),
    _topic(
        "clinic, hospital, treatment, checkup, visit, practice",
        """the clinic, the hospital, the treatment, the checkup, the waiting room, the therapy,
        the follow-up, the examination, the emergency room, the night shift""",
        "the nurse, the doctor, the receptionist, the dentist, the therapist, the midwife",
        """reassuring 1.5, gentle 1.2, thorough 1.2, efficient 1.2, comforting 1.5, organized 0.9,
        painless 1.1, effective 1.4, prompt 1.0, life-changing 2.4, dignified 1.2, humane 1.4,
        painful -1.3, chaotic -1.3, dirty -1.5, rushed -0.8, stressful -1.2, ineffective -1.2,
        impersonal -0.8, crowded -0.6, negligent -2.1, filthy -2.1, degrading -2.3,
        humiliating -2.3, disorganized -1.1, confusing -1.0""",
        """I had an appointment at nine, my mother came along, it was my second visit this year,
        they took a blood sample first, I was there for my knee,
        the parking lot is behind the building,
        I filled in two forms, they asked about my history""",
    ),
    _topic(
        "meal, dinner, lunch, restaurant, dish, breakfast",
        """the soup, the pasta, the steak, the pizza, the dessert, the breakfast, the curry,
        the main course, the salad, the sandwich, the fish, the pie""",
        "the waiter, the chef, the hostess, the barista, the cook",
        """delicious 2.0, tasty 1.4, fresh 1.1, flavorful 1.5, mouthwatering 2.2, heavenly 2.4,
        divine 2.3, appetizing 1.2, scrumptious 2.1, exquisite 2.2, filling 0.5, edible 0.1,
        bland -0.9, greasy -0.8, stale -1.3, soggy -1.0, overcooked -1.1, tasteless -1.4,
        disgusting -2.3, inedible -2.3, revolting -2.5, salty -0.6, burnt -1.3, lukewarm -0.7,
        rancid -2.2, overpriced -1.2""",
        """we ordered at about eight, there were four of us, I had a glass of water with it,
        it comes with rice and beans, they seated us by the window,
        it is around the corner from work,
        my brother had the same, we shared one plate""",
    ),
    _topic(
        "hotel, room, apartment, guesthouse, cabin, place",
        """the hotel, the room, the apartment, the cabin, the guesthouse, the bathroom, the lobby,
        the bed, the terrace, the suite""",
        "the host, the receptionist, the concierge, the landlord, the manager",
        """comfortable 1.3, spacious 1.1, peaceful 1.3, relaxing 1.5, gorgeous 2.1, luxurious 1.7,
        spotless 1.6, cozy 1.2, convenient 0.9, inviting 1.2, immaculate 2.0, noisy -1.0,
        cramped -0.9, dirty -1.4, shabby -1.2, filthy -2.1, run-down -1.3, uncomfortable -1.2,
        dingy -1.3, moldy -1.7, damp -0.9, gloomy -1.1, squalid -2.2, overpriced -1.2""",
        """we stayed for two nights, it is close to the station, we arrived a little after six,
        it has about forty rooms, breakfast starts at seven, we had booked it in May,
        there is a small table by the door, our window faced the street""",
    ),
    _topic(
        "concert, album, song, festival, show, recording",
        """the concert, the album, the song, the new single, the opening act, the second track,
        the encore, the festival, the show, the live version""",
        "the singer, the drummer, the guitarist, the conductor, the pianist",
        """catchy 1.2, soulful 1.5, electrifying 2.1, mesmerizing 2.1, haunting 1.2, uplifting 1.7,
        energetic 1.2, melodic 1.0, joyful 1.7, stirring 1.6, repetitive -0.8, generic -0.8,
        uninspired -1.1, grating -1.5, soulless -1.5, tuneless -1.4, unlistenable -2.3,
        monotonous -1.2, loud -0.4, lifeless -1.5, pretentious -1.2, deafening -1.1""",
        """it started at half past eight, we stood near the back, it lasted about ninety minutes,
        a friend had a spare ticket, they played twelve songs, I listened to it on the train,
        it came out in October, there was a short break""",
    ),
    _topic(
        "book, novel, biography, story, translation, read",
        """the book, the novel, the story, the first chapter, the ending, the biography,
        the translation, the writing, the middle part, the preface""",
        "the author, the narrator, the translator, the editor, the main character",
        """gripping 1.8, thought-provoking 1.6, beautiful 1.9, absorbing 1.6, elegant 1.4,
        poignant 1.6, readable 0.7, masterful 2.3, profound 1.8, enchanting 1.9, vivid 1.2,
        long-winded -0.9, pretentious -1.2, predictable -0.8, unreadable -2.2, shallow -1.0,
        confusing -1.0, tiresome -1.2, incoherent -1.4, boring -1.5, plodding -1.0, turgid -1.3,
        convoluted -0.9""",
        """I read it in about a week, it has three hundred pages, my aunt gave it to me,
        it takes place in a small town, I had it on my shelf for a year, it is the second of three,
        I borrowed it from the library, each chapter has a title""",
    ),
    _topic(
        "app, website, program, update, game, tool",
        """the app, the website, the update, the interface, the search function, the new version,
        the checkout page, the game, the setup, the home screen""",
        "the support agent, the developer, the trainer, the administrator",
        """intuitive 1.4, fast 1.1, stable 1.0, responsive 1.2, user-friendly 1.4, seamless 1.7,
        convenient 0.9, addictive 1.0, elegant 1.4, effortless 1.5, buggy -1.3, slow -1.0,
        clunky -1.0, unusable -2.1, confusing -1.0, glitchy -1.2, bloated -0.8, broken -1.8,
        cluttered -0.8, counterintuitive -1.0, frustrating -1.4, unstable -1.3""",
        """I installed it on Monday, it asks for an email address, there are two menus at the top,
        I use it on the bus, it was updated in June, you log in with a code,
        my colleagues use it too, it stores a copy of every file""",
    ),
    _topic(
        "service, delivery, repair, installation, company, shop",
        """the service, the delivery, the repair, the installation, the booking, the refund process,
        the return policy, the estimate, the follow-up call""",
        "the courier, the mechanic, the agent, the plumber, the electrician",
        """prompt 1.1, fast 1.1, smooth 1.2, hassle-free 1.4, efficient 1.2, fair 0.8,
        impeccable 2.3, effortless 1.5, dependable 1.4, transparent 1.0, speedy 1.2, late -0.9,
        slow -0.9, chaotic -1.3, inefficient -1.1, unfair -1.3, unreliable -1.4, scandalous -2.1,
        botched -1.7, shambolic -1.8, outrageous -2.0, overpriced -1.2, deceptive -1.9""",
        """I called them on Wednesday, they came on the following day, it took about an hour,
        I paid by card, a neighbor told me about them, they have an office downtown,
        I had to sign a form, the van was parked outside""",
    ),
    _topic(
        "trip, tour, flight, vacation, cruise, ride",
        """the trip, the tour, the flight, the train ride, the cruise, the excursion, the vacation,
        the boat ride, the walking tour""",
        "the guide, the driver, the flight attendant, the tour leader, the captain",
        """relaxing 1.5, unforgettable 2.2, breathtaking 2.3, exciting 1.7, fun 1.5, smooth 1.2,
        magical 2.3, adventurous 1.1, peaceful 1.3, picturesque 1.4, thrilling 1.9, exhausting -1.0,
        stressful -1.2, nightmarish -2.4, chaotic -1.3, boring -1.5, rushed -0.8, bumpy -0.7,
        tedious -1.2, overpriced -1.2, uncomfortable -1.2, harrowing -2.0""",
        """we left early in the morning, it took five hours, there were about twenty of us,
        we stopped twice on the way, I had packed one small bag, it rained on the second day,
        we took a bus back, the group met at the harbor""",
    ),
)


@dataclass(frozen=True)
class Degree:
    """An adverb, its factor on a valence, and the strengths |valence| it is said with."""

    phrase: str
    factor: float
    weakest: float
    strongest: float


DEGREES: tuple[Degree, ...] = (
    Degree("absolutely", 1.2, 1.7, 3.0),
    Degree("extremely", 1.4, 0.9, 1.9),
    Degree("incredibly", 1.4, 0.9, 1.9),
    Degree("remarkably", 1.3, 0.9, 1.8),
    Degree("truly", 1.25, 0.9, 3.0),
    Degree("so", 1.25, 0.9, 2.0),
    Degree("very", 1.25, 0.6, 1.9),
    Degree("really", 1.2, 0.8, 3.0),
    Degree("quite", 0.9, 0.6, 1.9),
    Degree("pretty", 0.85, 0.6, 1.9),
    Degree("fairly", 0.75, 0.6, 1.6),
    Degree("rather", 0.8, 0.6, 1.6),
    Degree("somewhat", 0.6, 0.6, 1.6),
    Degree("kind of", 0.6, 0.6, 1.6),
    Degree("a little", 0.5, 0.6, 1.4),
)

VERB_DEGREES: tuple[Degree, ...] = (
    Degree("absolutely", 1.2, 1.7, 3.0),
    Degree("truly", 1.25, 1.1, 3.0),
    Degree("really", 1.2, 0.9, 3.0),
    Degree("quite", 0.9, 0.9, 1.6),
    Degree("rather", 0.85, 0.9, 1.6),
    Degree("kind of", 0.6, 0.9, 2.0),
    Degree("sort of", 0.6, 0.9, 2.0),
)

HEDGES: tuple[tuple[str, float], ...] = (
    ("I am sure that", 1.1),
    ("I have to say that", 1.0),
    ("I must admit that", 1.0),
    ("I would say", 0.95),
    ("I think", 0.95),
    ("it seems to me that", 0.85),
    ("I guess", 0.75),
    ("I suppose", 0.75),
    ("maybe", 0.65),
)

OPENERS: tuple[str, ...] = (
    "well,", "so,", "honestly,", "in my opinion,", "personally,", "this time,", "to be honest,",
    "in the end,", "for me,", "all in all,", "looking back,", "if you ask me,",
    "like I said,", "you know,", "at first glance,",
)  # fmt: skip

# Adjuncts that end a clause and judge nothing.
TRAILERS: tuple[str, ...] = (
    "overall", "again", "yesterday", "today", "this time", "last night", "for us",
    "the other day", "this past weekend", "as far as I know",
    "on the first day", "when we were there", "from what I have seen", "at the end of the day",
    "compared with the one before", "on a rainy Sunday afternoon", "when I was there last week",
    "for someone who does this quite often", "even though I had heard a lot about it before",
)  # fmt: skip

# Neutral exchanges for the near-same sentence of a designed pair; each works in both directions.
SYNONYMS: tuple[tuple[str, str], ...] = (
    ("film", "movie"),
    ("in my opinion", "in my view"),
    ("to be honest", "frankly"),
    ("I think", "I believe"),
    ("I guess", "I suppose"),
    ("all in all", "on the whole"),
    ("last night", "yesterday evening"),
    ("the other day", "a few days ago"),
    ("when we were there", "when we visited"),
    ("from what I have seen", "from what I saw"),
    ("the teacher", "the instructor"),
    ("the doctor", "the physician"),
    ("the phone", "the smartphone"),
    ("the author", "the writer"),
    ("the salesperson", "the seller"),
    ("the support agent", "the support person"),
    ("the hospital", "the medical center"),
    ("the story", "the tale"),
    ("the app", "the application"),
    ("the show", "the performance"),
    ("the song", "the track"),
    ("the apartment", "the flat"),
    ("the trip", "the journey"),
    ("the vacation", "the holiday"),
    ("the lesson", "the class"),
    ("the main course", "the main dish"),
    ("but", "yet"),
    ("it seems to me that", "it appears to me that"),
    ("about two hours", "around two hours"),
)
